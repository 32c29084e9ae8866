"""Writes the report of a run: the page into the run or to a file, and the figures as SVG files."""

from collections.abc import Callable
from pathlib import Path

from modularity.errors import InputError
from modularity.report.figures import figures
from modularity.report.page import render_report
from modularity.report.run_content import report_content
from modularity.report.scan_content import scan_content
from modularity.report.scan_page import render_scan, scan_figures
from modularity.store import Space, is_scan, open_run, open_space

REPORT = "report.html"


def write_report(uri: str, *, out: Path | None = None, figures_folder: Path | None = None) -> list[str]:
    """Write the page, and the figures where a folder is given; returns what was written.

    Parameters
    ----------
    uri : the run, or the checkpoint scan, whose page has curves over steps; a run may still be running, parts that
        are not there yet are named on the page
    out : HTML file; None = `report.html` inside the run
    figures_folder : folder for one SVG file for each figure
    """
    space, page, drawn = _scan_page(uri) if is_scan(uri) else _run_page(uri)
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


def _run_page(uri: str) -> tuple[Space, str, Callable[[], dict[str, str]]]:
    run = open_run(uri)
    content = report_content(run)
    return run.space, render_report(content), lambda: figures(content)


def _scan_page(uri: str) -> tuple[Space, str, Callable[[], dict[str, str]]]:
    content = scan_content(uri)
    return open_space(uri), render_scan(content), lambda: scan_figures(content)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written ({error.strerror}); choose another place") from None
