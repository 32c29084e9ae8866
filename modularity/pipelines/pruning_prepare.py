"""From the config of a pruning to what its workers need: texts in parts, tokens, units, work items.

Nothing is computed and nothing is written here; whatever is wrong with the input is found here, all of it at once.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from modularity.data.corpora import Corpus, load_corpora, split_texts
from modularity.errors import InputError, ModelError
from modularity.interventions.continuations import Prompt, make_prompts
from modularity.interventions.language_modelling import TokenTexts, problems_of_head, token_texts
from modularity.interventions.pruned_checkpoint import place_problem
from modularity.interventions.pruning import UnitKind, Units, all_units
from modularity.models import ModelDescription, architecture_of, describe_model, load_tokenizer
from modularity.models.heads import HeadKind, head_kind
from modularity.pipelines.prepare import UNLIMITED_MODEL_TOKENS
from modularity.pipelines.pruning_config import PruningConfig
from modularity.types import WorkItem, content_digest

Result = TypeVar("Result")
MEASURED = ("validation", "evaluation")
RANDOM = "random"
NO_SEED = -1


@dataclass(frozen=True)
class Trajectory:
    """One way to remove units step by step."""

    score: str
    """Importance, or `random`."""
    schedule: str
    """`iterative`, `one_shot`, or `random`."""
    pruned: str
    """Corpus whose capability is to go; empty for random units, which belong to both directions."""
    seed: int = NO_SEED

    @property
    def name(self) -> str:
        """In results: `abs iterative code`, `random 3`."""
        return f"{RANDOM} {self.seed}" if self.score == RANDOM else f"{self.score} {self.schedule} {self.pruned}"

    @property
    def item(self) -> WorkItem:
        """The work item that runs it."""
        return WorkItem.of("trajectory", score=self.score, schedule=self.schedule, pruned=self.pruned, seed=self.seed)


@dataclass(frozen=True, eq=False)
class PreparedCorpus:
    """One category, tokenised."""

    name: str
    scoring: TokenTexts
    validation: TokenTexts
    evaluation: TokenTexts
    common: np.ndarray
    """int64: commonest tokens of the scoring texts."""
    prompts: tuple[Prompt, ...]
    judge_training: tuple[str, ...]
    """Pieces of texts, as long as a continuation."""
    judge_test: tuple[str, ...]
    notes: tuple[str, ...]

    def measured(self, part: str) -> TokenTexts:
        """Texts of `validation` or `evaluation`."""
        return self.validation if part == "validation" else self.evaluation

    @property
    def n_measured(self) -> int:
        """Texts of both parts."""
        return len(self.validation.texts) + len(self.evaluation.texts)

    def identity(self) -> dict[str, str]:
        """Fingerprints of everything that results depend on."""
        name = self.name
        judged = content_digest([[p.text, p.rest] for p in self.prompts] + [[*self.judge_training], [*self.judge_test]])
        return {
            f"{name} scoring": self.scoring.fingerprint,
            f"{name} validation": self.validation.fingerprint,
            f"{name} evaluation": self.evaluation.fingerprint,
            f"{name} prompts and judge": judged,
        }


@dataclass(frozen=True, eq=False)
class PreparedPruning:
    """Everything known before the first work item runs."""

    config: PruningConfig
    description: ModelDescription
    kind: HeadKind
    corpora: tuple[PreparedCorpus, PreparedCorpus]
    """Target, retain."""
    units: Mapping[UnitKind, Units]
    export_folder: Path | None = None
    """Where checkpoints are written, an absolute path: workers may run in another folder."""

    @property
    def n_steps(self) -> int:
        """Steps until the config's number is done or no FFN neuron is left."""
        return min(self.config.n_steps, -(-self.units["ffn"].n // self.per_step["ffn"]))

    @property
    def per_step(self) -> dict[UnitKind, int]:
        """Units of each kind that one step removes."""
        config = self.config
        n_attention = round(config.attention_share * self.units["attention"].n)
        return {
            "ffn": max(1, round(config.ffn_share * self.units["ffn"].n)),
            "attention": max(1, n_attention) if config.attention_share else 0,
        }

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest text, or of a prompt with what is written after it."""
        parts = [part for each in self.corpora for part in (each.scoring, each.validation, each.evaluation)]
        written = self.config.continuations
        longest = 1 if written is None else written.n_prompt_tokens + written.n_new
        return max(longest, *(len(text.inputs) + len(text.targets) for part in parts for text in part.texts))

    @property
    def directions(self) -> tuple[tuple[str, str], ...]:
        """(pruned, kept) names of corpora."""
        target, retain = (corpus.name for corpus in self.corpora)
        pairs = {"prune_target": (target, retain), "prune_retain": (retain, target)}
        return tuple(pairs[direction] for direction in self.config.directions)

    def corpus(self, name: str) -> PreparedCorpus:
        """A corpus by its name."""
        (found,) = (corpus for corpus in self.corpora if corpus.name == name)
        return found

    @property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """All of them, the random ones last."""
        config = self.config
        chosen = [
            Trajectory(score, schedule, pruned)
            for pruned, _ in self.directions
            for score in config.scores
            for schedule in config.schedules
        ]
        return (*chosen, *(Trajectory(RANDOM, RANDOM, "", seed) for seed in range(config.n_random)))

    def data_identity(self) -> dict[str, str]:
        """Fingerprints of the texts of both corpora."""
        return self.corpora[0].identity() | self.corpora[1].identity()

    def continuation_items(self) -> list[WorkItem]:
        """The unchanged model, each pruned one, and as many random ones."""
        if self.config.continuations is None:
            return []
        items = [WorkItem.of("continue", model="unchanged", pruned="", seed=NO_SEED)]
        for pruned, _ in self.directions:
            items.append(WorkItem.of("continue", model="pruned", pruned=pruned, seed=NO_SEED))
            items += [
                WorkItem.of("continue", model=RANDOM, pruned=pruned, seed=seed) for seed in range(self.config.n_random)
            ]
        return items

    def export_items(self) -> list[WorkItem]:
        """One item for each checkpoint."""
        return [] if self.config.export is None else [WorkItem.of("export", pruned=name) for name, _ in self.directions]

    def items(self) -> list[WorkItem]:
        """All items, in the order of the steps."""
        return [
            WorkItem.of("importance"),
            *(each.item for each in self.trajectories),
            WorkItem.of("areas"),
            *self.continuation_items(),
            *self.last_items(),
            *self.export_items(),
        ]

    def last_items(self) -> list[WorkItem]:
        """What brings the continuations together."""
        return [WorkItem.of("continuation_tests")] if self.config.continuations is not None else []


def prepare_pruning(config: PruningConfig) -> PreparedPruning:
    """Read and check everything that a job needs, without loading weights.

    Raises
    ------
    InputError
        With every problem found in corpora, model and their fit to each other.
    """
    problems: list[str] = []
    corpora = _attempt(lambda: load_corpora((config.target, config.retain)), problems)
    description = _attempt(lambda: describe_model(config.model), problems)
    tokenizer = _attempt(lambda: load_tokenizer(config.model), problems) if description is not None else None
    if config.export is not None:
        for name in (config.target.name, config.retain.name):
            found = place_problem(Path(config.export) / f"without-{name}")
            problems += [] if found is None else [f"export: {found}"]
    prepared: list[PreparedCorpus] = []
    kind: HeadKind | None = None
    if description is not None and tokenizer is not None:
        kind = head_kind(architecture_of(description.architecture))
        fit = [*_model_problems(config, description, kind), *problems_of_head(kind, tokenizer)]
        problems += fit
        if not fit:
            limits = (config.max_tokens, description.max_positions or UNLIMITED_MODEL_TOKENS)
            for corpus in corpora or ():
                made = _attempt(lambda c=corpus: _tokenised(config, c, kind, tokenizer, min(limits)), problems)  # type: ignore[misc]
                prepared += [] if made is None else [made]
    if problems or description is None or kind is None or len(prepared) != 2:
        raise InputError(problems)
    export = None if config.export is None else Path(config.export).absolute()
    return PreparedPruning(config, description, kind, (prepared[0], prepared[1]), all_units(description.shapes), export)


def _model_problems(config: PruningConfig, description: ModelDescription, kind: HeadKind) -> list[str]:
    problems = []
    if any(description.native_experts.values()):
        problems.append(f"model {config.model.name!r} has experts of its own; only dense FFNs are pruned")
    asked = config.continuations
    if asked is not None and kind == "masked":
        problems.append("continuations: a masked language model does not go on with a text; set continuations=null")
    longest = description.max_positions
    if asked is not None and longest is not None and asked.n_prompt_tokens + asked.n_new + 2 > longest:
        problems.append(
            f"continuations: {asked.n_prompt_tokens} tokens of a prompt and n_new={asked.n_new} with special tokens do "
            f"not fit into {longest} positions; lower n_prompt_tokens or n_new"
        )
    return problems


def _tokenised(
    config: PruningConfig, corpus: Corpus, kind: HeadKind, tokenizer: Any, max_tokens: int
) -> PreparedCorpus:
    parts = split_texts(corpus, config.parts.shares(), seed=config.seed)
    empty = [name for name, texts in parts.items() if not texts]
    if empty:
        raise InputError(
            f"corpus {corpus.name!r} has {len(corpus.texts)} texts, and none is left for {', '.join(empty)}; "
            "give more texts (cut long ones into several)"
        )
    budgets = {
        "scoring": config.scoring_tokens,
        "validation": config.validation_tokens,
        "evaluation": config.evaluation_tokens,
    }
    tokens, notes = {}, list(corpus.notes)
    for part, budget in budgets.items():
        every = token_texts(kind, tokenizer, parts[part], max_tokens=max_tokens)
        tokens[part] = every.first(budget)
        notes += _token_notes(f"{corpus.name}, {part}", every, tokens[part])
    prompts, training, test = _judged(config, corpus.name, kind, tokenizer, parts, notes)
    common = tokens["scoring"].commonest(config.n_common)
    return PreparedCorpus(
        corpus.name, tokens["scoring"], tokens["validation"], tokens["evaluation"], common, prompts, training, test,
        tuple(notes),
    )  # fmt: skip


def _token_notes(where: str, every: TokenTexts, kept: TokenTexts) -> list[str]:
    notes = []
    if every.n_truncated:
        notes.append(f"{where}: {every.n_truncated:,} of {len(every.texts):,} texts lost their end")
    if every.n_dropped:
        notes.append(f"{where}: {every.n_dropped:,} texts of one token left out")
    if len(kept.texts) < len(every.texts):
        notes.append(f"{where}: {len(every.texts) - len(kept.texts):,} texts beyond the budget of tokens not used")
    return notes


def _judged(
    config: PruningConfig,
    name: str,
    kind: HeadKind,
    tokenizer: Any,
    parts: Mapping[str, tuple[str, ...]],
    notes: list[str],
) -> tuple[tuple[Prompt, ...], tuple[str, ...], tuple[str, ...]]:
    """Prompts, and pieces for the judge; none where continuations are not asked for."""
    asked = config.continuations
    if asked is None:
        return (), (), ()
    found: dict[str, tuple[Prompt, ...]] = {}
    for part in ("prompts", "judge_training", "judge_test"):
        made, n_short = make_prompts(kind, tokenizer, parts[part], n_prompt=asked.n_prompt_tokens, n_new=asked.n_new)
        if not made:
            raise InputError(
                f"corpus {name!r}, {part}: none of {len(parts[part])} texts is longer than n_prompt_tokens="
                f"{asked.n_prompt_tokens}; lower it, or give longer texts"
            )
        if n_short:
            notes.append(f"{name}, {part}: {n_short:,} texts are no longer than a prompt and left out")
        known = {each.rest for each in found.get("judge_training", ())} if part == "judge_test" else set()
        found[part] = _distinct(part, made, known)
        n_alike = len(made) - len(found[part])
        what = "begin like another" if part == "prompts" else "go on like another"
        if n_alike:
            notes.append(f"{name}, {part}: {n_alike:,} texts {what} and are left out")
        if not found[part]:
            raise InputError(f"corpus {name!r}, {part}: all {len(made)} texts {what}; give texts that differ more")
    pieces = {part: tuple(each.rest for each in found[part][: asked.n_judge]) for part in found}
    return tuple(found["prompts"][: asked.n_prompts]), pieces["judge_training"], pieces["judge_test"]


def _distinct(part: str, texts: Sequence[Prompt], known: Collection[str]) -> tuple[Prompt, ...]:
    """Prompts with different beginnings, or pieces for the judge that are different and not among the known ones.

    Of one prompt a model writes one text, which is one observation; a piece that the judge has learnt is no test of it.
    """
    first: dict[Any, Prompt] = {}
    for each in texts:
        first.setdefault(each.ids if part == "prompts" else each.rest, each)
    return tuple(each for each in first.values() if each.rest not in known)


def _attempt(action: Callable[[], Result], problems: list[str]) -> Result | None:
    try:
        return action()
    except InputError as error:
        problems.extend(error.problems)
    except ModelError as error:
        problems.append(str(error))
    return None
