"""The comparison of the checkpoints of a scan: a run of its own below the scan, made again when checkpoints are added.

Its folder is named by what is compared, so that a comparison that was interrupted goes on, and a finished one is kept.
"""

from importlib.metadata import version

from modularity.errors import InputError
from modularity.pipelines.scan_config import ScanConfig
from modularity.pipelines.scan_steps import (
    ScanStep,
    ScanSummaryFactory,
    create_scan_result,
    level_names,
)
from modularity.pipelines.steps import Step, run_steps
from modularity.runtime import Executor
from modularity.store import Manifest, Run, ScanRecord, checkpoint_run, create_run, find_run, is_complete, open_space
from modularity.types import WorkItem

SUMMARIES = "summaries"


def summarise_scan(config: ScanConfig, record: ScanRecord, out: str, executor: Executor, *, quiet: bool) -> ScanRecord:
    """Compare the finished checkpoints; the record that names the new tables. Older tables are deleted.

    Nothing is compared where fewer than two checkpoints are finished, or predictivity is not among the analyses.
    """
    if len(record.finished) < 2 or "predictivity" not in config.analyses:
        return record
    space = open_space(out)
    contents = {checkpoint.name: checkpoint.content_hash for checkpoint in record.finished}
    path = f"{SUMMARIES}/{config.summary_digest(contents)}"
    place = space.join(path).uri
    found = find_run(place)
    if found is None or not is_complete(found):
        _compare(config, record, out, place, executor, quiet=quiet)
    for old in space.list(SUMMARIES):
        if not old.startswith(f"{path}/"):
            space.delete(old)
    return record.model_copy(update={"summary": path})


def _compare(config: ScanConfig, record: ScanRecord, out: str, place: str, executor: Executor, *, quiet: bool) -> None:
    space = open_space(out)
    runs = [checkpoint_run(space, checkpoint.name) for checkpoint in record.finished]
    steps = tuple(ScanStep(c.name, c.step, run.uri) for c, run in zip(record.finished, runs))
    functions = [function.name for function in config.functions]
    _require_equal_layers(record, runs, functions[0])
    n_layers = {name: len(runs[0].results(name)["layer"]) for name in functions}
    layer_items = [
        WorkItem.of("stabilisation", function=name, index=index)
        for name in functions
        for index in range(n_layers[name])
    ]
    curve_items = [WorkItem.of("curves", function=name) for name in functions]
    run = create_run(place, _manifest(config, record, runs, len(layer_items), len(curve_items)))
    factory = ScanSummaryFactory(
        uri=place,
        steps=steps,
        partition_of=record.partition_of,
        variant=config.variant,
        n_experts=config.experts.n_experts,
        n_random=config.scan.n_random,
        n_bootstrap=config.scan.n_bootstrap,
        seed=config.scan.seed,
        n_threads=record.threads,
    )

    def allocate() -> None:
        for name in functions:
            create_scan_result(run, runs[0], name, steps, level_names(runs[0]))

    run_steps(
        run,
        executor,
        [Step("compare", items, factory) for items in (layer_items, curve_items)],
        allocate=allocate,
        quiet=quiet,
    )


def _require_equal_layers(record: ScanRecord, runs: list[Run], function: str) -> None:
    """InputError where the layers of the checkpoints, known of a hub repository only now, differ in number or width."""
    widths = [run.results(function)["width"].values.tolist() for run in runs]
    other = [c.name for c, found in zip(record.finished, widths) if found != widths[-1]]
    if other:
        raise InputError(
            f"the layers of {', '.join(other)} differ in number or width from those of {record.finished[-1].name}: a "
            "scan compares the same neurons at every step; scan these apart, with another --out"
        )


def _manifest(config: ScanConfig, record: ScanRecord, runs: list[Run], n_layers: int, n_curves: int) -> Manifest:
    """Of the run with the tables: identified by the contents that are compared."""
    return Manifest.of(
        "compare_checkpoints",
        config=config.common(),
        identity={
            "model": {"name": runs[-1].manifest.identity["model"]["name"]},
            "data": runs[-1].manifest.identity["data"],
            "checkpoints": {checkpoint.name: checkpoint.content_hash for checkpoint in record.finished},
            "software": {"modularity": version("modularity")},
        },
        versions=runs[-1].manifest.versions,
        seeds={"scan": config.scan.seed, "predictivity": config.predictivity.seed, "experts": config.experts.seed},
        items_planned={"stabilisation": n_layers, "curves": n_curves},
        notes={"partition_of": record.partition_of, "analysed": runs[-1].manifest.notes.get("analysed")},
    )
