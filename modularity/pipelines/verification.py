"""Is a run what it says? Every stored byte against its record, and a sample of rows computed again from the model."""

from dataclasses import dataclass, field

import numpy as np

from modularity.capture import Capturer
from modularity.data import token_batches
from modularity.errors import ModularityError
from modularity.models import MatmulMode, apply_matmul_mode, load_model
from modularity.pipelines.config import EmergentModularityConfig
from modularity.pipelines.prepare import PreparedJob, prepare
from modularity.pipelines.similarity_config import SimilarityConfig
from modularity.pipelines.similarity_prepare import PreparedSimilarity, prepare_similarity
from modularity.store import Run, checkpoint_path, open_run, open_space, read_scan, verify_store

WITH_ROWS = ("emergent_modularity", "similarity")
"""Jobs whose runs hold activations."""
RELATIVE_TOLERANCE = {"float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2}
"""Allowed difference by dtype of the model or the store, relative to the largest value of the row: batches differ from
those of the run, so that floating-point sums are reduced in another order."""


@dataclass(frozen=True)
class Verification:
    """Outcome of `verify_run`."""

    uri: str
    n_items: int
    """Committed items whose objects were hashed again."""
    n_rows: int
    """Rows recomputed from the model."""
    largest_difference: float
    """Largest difference of a recomputed value, relative to the largest value of its row and site."""
    problems: tuple[str, ...] = field(default=())

    def text(self) -> str:
        """Lines for the terminal."""
        lines = [f"{self.uri}: {self.n_items} items checked, {self.n_rows} rows recomputed from the model"]
        if self.n_rows:
            lines.append(
                f"largest difference of a recomputed value: {self.largest_difference:.1e} of its row's largest"
            )
        lines += [f"problem: {problem}" for problem in self.problems]
        return "\n".join([*lines, "everything agrees" if not self.problems else f"{len(self.problems)} problems"])


def verify_run(uri: str, *, n_rows: int = 8, seed: int = 0) -> Verification:
    """Hash every committed object again, and recompute `n_rows` rows of each function from model and data.

    Runs of other jobs than `emergent_modularity` and `similarity`, and those with reductions instead of rows, hold no
    activations: there, the hashes are all.
    """
    run = open_run(uri)
    stored = verify_store(run)
    problems = [problem.message for problem in stored.problems]
    difference, checked = 0.0, 0
    stores_rows = run.manifest.config.get("reductions", {}).get("store_rows", True)
    if n_rows and (run.manifest.job not in WITH_ROWS or not stores_rows):
        n_rows = 0  # there are no rows of activations
    if n_rows and run.manifest.state == "finished":
        try:
            difference, checked, found = _recompute(run, n_rows, seed)
            problems += found
        except ModularityError as error:
            problems.append(f"rows could not be recomputed: {error}")
    elif n_rows:
        problems.append(
            f"the run is {run.manifest.state}, not finished: its rows were not recomputed; rerun the job first"
        )
    return Verification(run.uri, stored.n_items, checked, difference, tuple(problems))


def verify_scan(uri: str, *, n_rows: int = 8, seed: int = 0) -> tuple[Verification, ...]:
    """`verify_run` of every finished checkpoint of a scan, and the hashes of its tables."""
    record, space = read_scan(uri), open_space(uri)
    places = [checkpoint_path(checkpoint.name) for checkpoint in record.finished]
    places += [] if record.summary is None else [record.summary]
    return tuple(verify_run(space.join(place).uri, n_rows=n_rows, seed=seed) for place in places)


def _recompute(run: Run, n_rows: int, seed: int) -> tuple[float, int, list[str]]:
    job = _prepared(run)
    problems = _identity_problems(run, job)
    model = load_model(job.config.model)
    recorded = run.manifest.identity["model"]["parameter_hash"]
    if model.identity.parameter_hash != recorded:
        problems.append(f"the model's parameters have hash {model.identity.parameter_hash}, recorded is {recorded}")
    if problems:
        return 0.0, 0, problems
    mode = run.manifest.notes.get("matmul")
    if mode is not None:
        apply_matmul_mode(MatmulMode(**{**mode, "shape": tuple(mode["shape"])}), device=model.device)
    capture = job.capture
    capturer = Capturer(model, tuple(job.shapes), layers=capture.layers, expert_variant=capture.expert_variant)
    tolerance = max(RELATIVE_TOLERANCE[dtype] for dtype in (capture.dtype, model.identity.dtype))
    generator = np.random.default_rng(seed)
    largest, checked = 0.0, 0
    for name, table in job.tables.items():
        rows = sorted(generator.choice(table.n_rows, size=min(n_rows, table.n_rows), replace=False).tolist())
        for row in rows:
            difference, worst = row_difference(run, job, capturer, name, row, model.pad_id)
            largest, checked = max(largest, difference), checked + 1
            if difference > tolerance:
                problems.append(
                    f"row {row} of function {name!r} differs at {worst}: {difference:.1e}, allowed {tolerance:.0e}"
                )
    return largest, checked, problems


def _prepared(run: Run) -> PreparedJob | PreparedSimilarity:
    if run.manifest.job == "similarity":
        return prepare_similarity(SimilarityConfig.model_validate(run.manifest.config))
    return prepare(EmergentModularityConfig.model_validate(run.manifest.config))


def _identity_problems(run: Run, job: PreparedJob | PreparedSimilarity) -> list[str]:
    recorded, now = run.manifest.identity["data"], job.data_identity()
    return [
        f"the data of function {name!r} has fingerprint {now.get(name)}, recorded is {fingerprint}"
        for name, fingerprint in recorded.items()
        if now.get(name) != fingerprint
    ]


def row_difference(
    run: Run, job: PreparedJob | PreparedSimilarity, capturer: Capturer, function: str, row: int, pad_id: int
) -> tuple[float, str]:
    """Largest relative difference of one row over all sites, and where it is."""
    table = job.tables[function]
    out = {site: np.empty((1, len(shape.layers), *shape.unit_shape), np.float32) for site, shape in job.shapes.items()}
    batches = token_batches(table, row, row + 1, tokens_per_batch=job.capture.tokens_per_batch, pad_id=pad_id)
    capturer.capture(batches, out, row, reduction=table.reduction)
    differences = {}
    for site, values in out.items():
        stored = run.read_activations(function, site, rows=slice(row, row + 1))
        scale = float(np.nanmax(np.abs(values))) or 1.0
        differences[str(site)] = float(np.nanmax(np.abs(stored - values))) / scale
        if (np.isnan(stored) != np.isnan(values)).any():
            differences[str(site)] = np.inf
    worst = max(differences, key=lambda site: differences[site])
    return differences[worst], worst
