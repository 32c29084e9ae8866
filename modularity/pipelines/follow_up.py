"""What jobs have in common that start from a finished run: they read it only, and write a run of their own."""

from collections.abc import Mapping
from typing import Any, Protocol

from modularity.pipelines.prepare import PreparedJob
from modularity.pipelines.restrictions import Restriction
from modularity.store import Run
from modularity.types import Site


class FollowUp(Protocol):
    """What is known of such a job before its first work item runs."""

    @property
    def source(self) -> Run:
        """The finished run."""

    @property
    def job(self) -> PreparedJob:
        """The job of that run."""

    @property
    def site(self) -> Site:
        """The neurons that the run ranked."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers in which the model is changed."""

    @property
    def restrictions(self) -> tuple[Restriction, ...]:
        """Experts that routing is restricted to."""

    def data_identity(self) -> dict[str, str]:
        """What the results depend on besides model, config and the finished run."""


def source_identity(source: Run) -> dict[str, Any]:
    """What stands for a finished run in the identity of a run that reads it."""
    return {"source": {"config_digest": source.manifest.config_digest, "content_hash": source.content_hash()}}


def follow_up_identity(prepared: FollowUp) -> dict[str, Any]:
    """What the results depend on besides model and config."""
    return {"data": prepared.data_identity(), **source_identity(prepared.source)}


def follow_up_notes(prepared: FollowUp, found: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest of such a job tells of the model and of what is changed in it."""
    shape = prepared.job.description.shapes[prepared.site]
    return {
        "head": found["head"],
        "matmul": prepared.source.manifest.notes.get("matmul"),
        "analysed": str(prepared.site),
        "layers": list(prepared.layers),
        "n_neurons": [shape.widths[shape.layers.index(layer)] for layer in prepared.layers],
        "restrictions": [
            {
                "task": each.task,
                "experts": {str(layer): list(chosen) for layer, chosen in each.experts},
                "left_out": list(each.left_out),
            }
            for each in prepared.restrictions
        ],
    }
