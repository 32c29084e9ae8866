"""The page of a tight pass: one HTML file that loads nothing, in the style of the page of a run."""

from modularity.report.figures import Figure, plot_figure
from modularity.report.page import finding_sentence, render_page
from modularity.report.svg import standalone
from modularity.report.tight_pass import TightPass, tight_pass_plots


def tight_pass_figures(content: TightPass) -> dict[str, str]:
    """Every figure as the text of a standalone SVG file, by name."""
    return {figure.name: standalone(figure.wide) for figure in _figures(content)}


def render_tight_pass(content: TightPass) -> str:
    """The page as HTML text: a whole document without any reference outside itself, all text escaped."""
    figures = _figures(content)
    return render_page(
        "tight_pass.html.j2",
        content=content,
        figures=figures,
        numbers={figure.name: number for number, figure in enumerate(figures, 1)},
        sentence=finding_sentence,
    )


def _figures(content: TightPass) -> tuple[Figure, ...]:
    return tuple(plot_figure(plot) for plot in tight_pass_plots(content))
