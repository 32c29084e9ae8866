"""Writes the report of a run: the page into the run or to a file, and the figures as SVG files."""

from pathlib import Path

from modularity.errors import InputError
from modularity.report.figures import figures
from modularity.report.page import render_report
from modularity.report.run_content import report_content
from modularity.store import open_run

REPORT = "report.html"


def write_report(uri: str, *, out: Path | None = None, figures_folder: Path | None = None) -> list[str]:
    """Write the page, and the figures where a folder is given; returns what was written.

    Parameters
    ----------
    uri : the run; it may still be running, parts that are not there yet are named on the page
    out : HTML file; None = `report.html` inside the run
    figures_folder : folder for one SVG file for each figure
    """
    run = open_run(uri)
    content = report_content(run)
    page = render_report(content)
    if out is None:
        run.space.write(REPORT, page.encode())
        written = [run.space.address(REPORT)]
    else:
        _write(out, page)
        written = [str(out)]
    if figures_folder is not None:
        for name, svg in figures(content).items():
            path = figures_folder / f"{name}.svg"
            _write(path, svg)
            written.append(str(path))
    return written


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written ({error.strerror}); choose another place") from None
