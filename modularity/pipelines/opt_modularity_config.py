"""The config of the OPT modularity study: its four studies of one model, each with a config of its own."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from modularity.config import Config
from modularity.models import ModelConfig
from modularity.pipelines.config import Allowance
from modularity.pipelines.graph_modularity_config import GraphModularityConfig
from modularity.pipelines.pruning_config import PruningConfig
from modularity.pipelines.similarity_config import SimilarityConfig
from modularity.pipelines.tight_pass_config import TightPassConfig
from modularity.runtime import RuntimeConfig

PARTS = ("similarity", "tight_pass", "graph_modularity", "pruning")
SHARED = ("model", "allowance", "runtime")


class OptModularityConfig(Config):
    """Similarity, tight passes, graphs and pruning of one model (cards of NickyP and Fowler 2022 and its follow-ups).

    A part is left out where it is null; what parts share is taken from here where they do not say otherwise.
    """

    job: Literal["opt_modularity"] = "opt_modularity"
    """Kind of job; `modularity run FILE` reads it."""
    model: ModelConfig
    """The checkpoint of every part."""
    similarity: SimilarityConfig | None = None
    """Similarity of activations of texts in categories."""
    tight_pass: TightPassConfig | None = None
    """Spectra of the Jacobians of sub-blocks."""
    graph_modularity: GraphModularityConfig | None = None
    """Groups in graphs of weights and co-activations."""
    pruning: PruningConfig | None = None
    """Removing one capability and keeping another."""
    allowance: Allowance = Allowance()
    """Limits on the plan of each part."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Where the work runs; not part of what identifies the results."""

    @model_validator(mode="before")
    @classmethod
    def _share(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        shared = {key: values[key] for key in SHARED if key in values}
        parts = {name: values[name] for name in PARTS if isinstance(values.get(name), Mapping)}
        return {**values, **{name: {**shared, **part} for name, part in parts.items()}}

    @model_validator(mode="after")
    def _check(self) -> Self:
        found = self.parts()
        problems = [] if found else [f"no part is given: name one or more of {', '.join(PARTS)}"]
        problems += [
            f"{name}.model is {part.model.name!r}, the model of the study {self.model.name!r}: leave {name}.model away"
            for name, part in found.items()
            if part.model is not None and part.model != self.model
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def parts(self) -> dict[str, Any]:
        """Configs of the parts that are given, in the order in which they run."""
        given = {name: getattr(self, name) for name in PARTS}
        return {name: part for name, part in given.items() if part is not None}
