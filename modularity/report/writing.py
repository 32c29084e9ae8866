"""Writes the report of a run: the page into the run or to a file, and the figures as SVG files."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from modularity.errors import InputError
from modularity.report.figures import figures
from modularity.report.joint_page import joint_part, render_joint
from modularity.report.page import render_report
from modularity.report.raster import png_problems, svg_to_png
from modularity.report.run_content import model_name, report_content
from modularity.report.run_tight_pass import JOB as TIGHT_PASS
from modularity.report.run_tight_pass import tight_pass_content
from modularity.report.scan_content import scan_content
from modularity.report.scan_findings import scan_findings
from modularity.report.scan_page import render_scan, scan_figures
from modularity.report.similarity_content import JOB as SIMILARITY
from modularity.report.similarity_content import SimilarityContent
from modularity.report.similarity_export import similarity_drawings
from modularity.report.similarity_page import render_similarity
from modularity.report.tight_pass_page import render_tight_pass, tight_pass_figures
from modularity.store import SERIES, Space, is_scan, open_run, open_space, read_scan

REPORT = "report.html"


def write_report(
    uri: str, *, out: Path | None = None, figures_folder: Path | None = None, scan: str | None = None
) -> list[str]:
    """Write the page, and the figures where a folder is given; returns what was written.

    Parameters
    ----------
    uri : the run, or the checkpoint scan, whose page has curves over steps; a run may still be running, parts that
        are not there yet are named on the page
    out : HTML file; None = `report.html` inside the run
    figures_folder : folder for one SVG file for each figure
    scan : finished checkpoint scan that the page of a run takes in as a section, with its findings; None = the scan in
        its folder `series`, where there is one with tables

    Raises
    ------
    InputError
        `scan` is given for the page of a scan or is none itself, or a place cannot be written.
    StoreError
        There is no run, or the scan has no tables yet.
    """
    if scan is not None:
        _check_scan(uri, scan)
    elif not is_scan(uri):
        scan = _own_series(uri)
    space, page, drawn = _scan_page(uri) if is_scan(uri) else _run_page(uri, scan)
    if out is None:
        space.write(REPORT, page.encode())
        written = [space.address(REPORT)]
    else:
        _write(out, page)
        written = [str(out)]
    if figures_folder is not None:
        for name, svg in drawn().items():
            path = figures_folder / f"{name}.svg"
            _write(path, svg)
            written.append(str(path))
    return written


def _own_series(uri: str) -> str | None:
    """The scan that a run brings along, as soon as it has tables."""
    series = open_space(uri).join(SERIES).uri
    return series if is_scan(series) and read_scan(series).summary is not None else None


def write_figures(
    uri: str, folder: Path, *, png_scale: float | None = 3.0, dimensions: tuple[int, ...] = ()
) -> list[str]:
    """Write every figure of a run or scan as an SVG file, and as a PNG file; returns what was written.

    Parameters
    ----------
    uri : the run or scan
    folder : for the files, made where it is missing
    png_scale : pixels for each pixel of the drawing; None: no PNG files
    dimensions : of a similarity run: dimensions whose streams are drawn, beside those with the largest F

    Raises
    ------
    InputError
        `png_scale` is not positive or too large, resvg-py is not installed, `dimensions` are out of range or for
        another job, or a file cannot be written.
    StoreError
        There is no run.
    """
    problems = [] if png_scale is None else png_problems(png_scale)
    is_similarity = not is_scan(uri) and open_run(uri).manifest.job == SIMILARITY
    if dimensions and not is_similarity:
        problems.append(f"--dimension {dimensions[0]}: {uri} is no similarity study, the only runs with streams")
    if problems:
        raise InputError(problems)
    if is_similarity:
        run = open_run(uri)
        drawn = similarity_drawings(SimilarityContent(run, model_name(run)), dimensions)
    else:
        _, _, draw = _scan_page(uri) if is_scan(uri) else _run_page(uri, _own_series(uri))
        drawn = draw()
    written = []
    for name, svg in drawn.items():
        path = folder / f"{name}.svg"
        _write(path, svg)
        written.append(str(path))
        if png_scale is not None:
            _write(path.with_suffix(".png"), svg_to_png(svg, png_scale))
            written.append(str(path.with_suffix(".png")))
    return written


def write_joint_report(uri: str, parts: Sequence[str]) -> list[str]:
    """Write the page of a study in parts, each a run in the folder of its name inside `uri`; returns its place."""
    space = open_space(uri)
    runs = {name: open_run(space.join(name).uri) for name in parts}
    found = [joint_part(run, f"{name}/{REPORT}") for name, run in runs.items()]
    space.write(REPORT, render_joint(model_name(next(iter(runs.values()))), found).encode())
    return [space.join(REPORT).uri]


def _check_scan(uri: str, scan: str) -> None:
    if is_scan(uri):
        raise InputError(f"--scan {scan}: {uri} is a scan itself, and only the page of a single run takes one in")
    if not is_scan(scan):
        raise InputError(f"--scan {scan}: there is no checkpoint scan; expected the --out of jobs.scan_checkpoints")


def _run_page(uri: str, scan: str | None) -> tuple[Space, str, Callable[[], dict[str, str]]]:
    run = open_run(uri)
    if scan is not None and run.manifest.job in (TIGHT_PASS, SIMILARITY):
        raise InputError(f"--scan {scan}: {uri} is a run of {run.manifest.job}, whose page takes no scan in")
    if run.manifest.job == TIGHT_PASS:
        passes = tight_pass_content(run)
        return run.space, render_tight_pass(passes), lambda: tight_pass_figures(passes)
    if run.manifest.job == SIMILARITY:
        found = SimilarityContent(run, model_name(run))
        return run.space, render_similarity(found), lambda: similarity_drawings(found)
    content = report_content(run)
    if scan is not None:
        shown = scan_content(scan)
        content = replace(content, scan=shown, findings=(*content.findings, *scan_findings(shown)))
    return run.space, render_report(content), lambda: figures(content)


def _scan_page(uri: str) -> tuple[Space, str, Callable[[], dict[str, str]]]:
    content = scan_content(uri)
    return open_space(uri), render_scan(content), lambda: scan_figures(content)


def _write(path: Path, content: str | bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written ({error.strerror}); choose another place") from None
