"""The page of a checkpoint scan: one HTML file that loads nothing, in the style of the page of a run."""

from modularity.report.figures import Figure, plot_figure
from modularity.report.page import render_page
from modularity.report.scan_content import ScanContent
from modularity.report.scan_figures import scan_plots
from modularity.report.svg import standalone


def scan_figures(content: ScanContent) -> dict[str, str]:
    """Every figure as the text of a standalone SVG file, by name."""
    return {figure.name: standalone(figure.wide) for figure in _figures(content)}


def _figures(content: ScanContent) -> tuple[Figure, ...]:
    return tuple(plot_figure(plot) for plot in scan_plots(content))


def render_scan(content: ScanContent) -> str:
    """The page as HTML text: a whole document without any reference outside itself, all text escaped."""
    figures = _figures(content)
    return render_page(
        "scan.html.j2",
        content=content,
        figures=figures,
        numbers={figure.name: number for number, figure in enumerate(figures, 1)},
    )
