"""The page of a checkpoint scan: one HTML file that loads nothing, in the style of the page of a run."""

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from modularity.report import wording
from modularity.report.figures import Figure, _plot_figure
from modularity.report.page import _TEMPLATES, _policy, _style
from modularity.report.scan_content import ScanContent
from modularity.report.scan_figures import scan_plots
from modularity.report.svg import standalone


def scan_figures(content: ScanContent) -> dict[str, str]:
    """Every figure as the text of a standalone SVG file, by name."""
    return {figure.name: standalone(figure.wide) for figure in _figures(content)}


def _figures(content: ScanContent) -> tuple[Figure, ...]:
    return tuple(_plot_figure(plot) for plot in scan_plots(content))


def render_scan(content: ScanContent) -> str:
    """The page as HTML text: a whole document without any reference outside itself, all text escaped."""
    style, script = _style(), (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("modularity.report", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["words"] = wording
    figures = _figures(content)
    return environment.get_template("scan.html.j2").render(
        content=content,
        figures=figures,
        numbers={figure.name: number for number, figure in enumerate(figures, 1)},
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
    )
