"""`--reuse RUN`: which items a job takes over from another run instead of computing them again.

Activations are reused where model, capture settings, data and software are the same; partitions and rankings where
their own settings are the same, too. What is computed from these is always computed again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from modularity.errors import IdentityError, InputError, StoreError
from modularity.pipelines.config import EmergentModularityConfig
from modularity.pipelines.place import recorded_config, software_identity
from modularity.pipelines.prepare import PreparedJob
from modularity.store import Manifest, Run, differing_keys, open_run, open_space
from modularity.types import WorkItem

_LATER_SETTINGS = {
    "experts": {"top_fraction", "sensitivity", "alpha", "fdr", "n_permutations"},
    "predictivity": {"n_bootstrap", "n_top", "n_examples"},
}
"""Settings of a section that neither partitions nor rankings depend on."""


def source_run(uri: str, out: str | None) -> Run:
    """The run to reuse; InputError if there is none, or if it is the one that is written."""
    if out is not None and open_space(uri) == open_space(out):
        raise InputError(f"--reuse {uri} is the place of --out: name another place for the new run")
    try:
        return open_run(uri)
    except StoreError as error:
        raise InputError(f"--reuse: {error}") from None


def check_source(source: Run, config: EmergentModularityConfig, data: Mapping[str, str] | None) -> None:
    """Refuse a run whose activations are not those of this job, as far as is known before the model is loaded.

    Parameters
    ----------
    data : fingerprints of the functions; None where they could not be read
    """
    wanted = recorded_config(config)
    sections = [(f"config.{name}", source.manifest.config.get(name), wanted[name]) for name in ("model", "capture")]
    recorded = source.manifest.identity
    sections += [(f"identity.{name}", recorded.get(name), value) for name, value in software_identity().items()]
    if data is not None:
        sections.append(("identity.data", _subset(recorded.get("data", {}), data), data))
    _refuse(source, sections)


def check_source_identity(source: Run, manifest: Manifest) -> None:
    """The same for everything that a run is identified by: parameters, tokenizer, threads."""
    wanted, recorded = manifest.identity, dict(source.manifest.identity)
    recorded["data"] = _subset(recorded.get("data", {}), wanted["data"])
    _refuse(source, [("identity", recorded, wanted)])


def reusable(job: PreparedJob, source: Run) -> list[WorkItem]:
    """Items of the job that the source has committed, with the same settings where they depend on any."""
    done = source.committed_ids()
    old, new = source.manifest.config, recorded_config(job.config)
    items = job.capture_items()
    if _settings(old, "experts") == _settings(new, "experts"):
        items += job.partition_items()
    if _listed(old) == _listed(new) and _settings(old, "predictivity") == _settings(new, "predictivity"):
        items += job.predictivity_items()
    return [item for item in items if item.id in done]


def reuse_text(items: Sequence[WorkItem], source: Run) -> str:
    """`3 capture, 2 partition from RUN`."""
    counts = Counter(item.kind for item in items)
    return f"{', '.join(f'{count:,} {kind}' for kind, count in counts.items()) or 'nothing'} from {source.uri}"


def _settings(config: Mapping[str, Any], section: str) -> dict[str, Any]:
    return {key: value for key, value in config[section].items() if key not in _LATER_SETTINGS[section]}


def _listed(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """What else a ranking depends on: how many neurons are listed for the experts, and which half is ranked."""
    overlap = config["overlap"]["top_fraction"] if "overlap" in config["analyses"] else None
    return config["variant"], "experts" in config["analyses"], config["experts"]["top_fraction"], overlap


def _subset(recorded: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Functions of the source that the job has, too; the others may stay unused."""
    return {name: value for name, value in recorded.items() if name in wanted}


def _refuse(source: Run, sections: Sequence[tuple[str, Any, Any]]) -> None:
    differences = [
        f"  {name}{f'.{key}' if key else ''}: recorded {old}, now {new}"
        for name, recorded, wanted in sections
        for key, old, new in differing_keys(_mapping(recorded), _mapping(wanted))
    ]
    if differences:
        lines = "\n".join(differences)
        raise IdentityError(
            f"the activations of {source.uri} were made from something else:\n{lines}\n"
            "set these values back to reuse them, or leave --reuse away to capture anew"
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {"": value}
