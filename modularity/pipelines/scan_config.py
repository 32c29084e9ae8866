"""The config of a checkpoint scan: that of the Emergent Modularity study, and what concerns several checkpoints."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from modularity.config import Config, validate_config
from modularity.pipelines.config import ACTIVITY_METHODS, EmergentModularityConfig
from modularity.pipelines.revisions import Checkpoint
from modularity.types import content_digest

_PER_CALL = {"revisions", "folders", "parallel", "cache_bytes", "partition_of"}
"""Settings that may differ between two calls which add checkpoints to one scan."""


class ScanSettings(Config):
    """Which checkpoints, side by side how, and how they are compared (card A8)."""

    revisions: str | None = None
    """List or pattern of hub revisions, or of the sub-folders of a training directory: `step1000,step2000`,
    `step1000:step143000:8` (even), `step1:step143000:log12` (even ratios). None: all sub-folders."""
    folders: tuple[str, ...] = ()
    """Checkpoint folders instead of one model with revisions, each a path or `STEP=PATH`."""
    partition_of: str | None = None
    """Name of the checkpoint (`step143000`) whose partition into experts all others use; None: the last one, and in a
    scan that is extended the one that it began with."""
    parallel: int | None = Field(default=None, ge=1)
    """Checkpoints that run side by side; None: one for each worker that the machines allow."""
    cache_bytes: int = Field(default=100_000_000_000, gt=0)
    """Bytes that revisions downloaded by the scan may take on a machine; the least recently used are deleted beyond,
    but for those that a worker uses or needs next."""
    n_random: int = Field(default=50, ge=2)
    """Random partitions, the same at every step, behind the random level of stabilisation."""
    n_bootstrap: int = Field(default=2000, ge=100)
    """Resamples of sub-functions behind the bands of stabilisation."""
    seed: int = Field(default=0, ge=0)
    """Seed of random partitions and resamples."""


class ScanConfig(EmergentModularityConfig):
    """When in pre-training does modularity appear? One study of every checkpoint, and how they change."""

    job: Literal["scan_checkpoints"] = "scan_checkpoints"  # type: ignore[assignment]  # another kind of job
    scan: ScanSettings = ScanSettings()
    """The checkpoints and their comparison."""

    @model_validator(mode="after")
    def _check_scan(self) -> Self:
        if self.experts.from_run is not None:
            raise ValueError(
                f"experts.from_run={self.experts.from_run!r}: a scan chooses the checkpoint whose partition all others "
                "use; name it with scan.partition_of"
            )
        if self.controls.random_weights:
            raise ValueError(
                "controls.random_weights is for single runs: a scan has an early checkpoint to compare with"
            )
        active = [method for method in self.experts.methods if method in ACTIVITY_METHODS]
        if active:
            raise ValueError(
                f"experts.methods has {' and '.join(active)}: a scan has one partition for all checkpoints, and these "
                "depend on the activations of one; leave them away, or run `emergent_modularity` on single checkpoints"
            )
        return self

    def common(self) -> dict[str, Any]:
        """What all checkpoints of a scan have in common, and what identifies the scan."""
        values = self.as_json()
        values["scan"] = {name: value for name, value in values["scan"].items() if name not in _PER_CALL}
        values["model"] = {name: value for name, value in values["model"].items() if name not in ("name", "revision")}
        return {name: value for name, value in values.items() if name not in ("runtime", "allowance")}

    def of_checkpoint(
        self, checkpoint: Checkpoint, *, partition_of: str | None, matmul: str
    ) -> EmergentModularityConfig:
        """The study of one checkpoint, as a job of its own; `partition_of` names the checkpoint with the partition."""
        values = {name: value for name, value in self.as_json().items() if name not in ("job", "scan")}
        values["model"] |= {"name": checkpoint.model, "revision": checkpoint.revision, "matmul": matmul}
        if partition_of not in (None, checkpoint.name) and "experts" in self.analyses:
            values["experts"] |= {"from_run": f"../{partition_of}"}
        return validate_config(EmergentModularityConfig, values)

    def summary_digest(self, contents: dict[str, str | None]) -> str:
        """Digest of the settings of the comparison and of the contents of the runs that are compared."""
        return content_digest([self.common(), contents])
