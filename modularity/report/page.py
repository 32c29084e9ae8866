"""The report page: one HTML file that loads nothing, made from `ReportContent` by a Jinja2 template.

The page's content security policy allows exactly its own style and script (by hash) and no request, so that even text
that slipped through escaping could neither run nor call home.
"""

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from modularity.report import section_texts, wording
from modularity.report.content import ExampleValue, Finding, ReportContent
from modularity.report.figures import Figure, page_figures
from modularity.report.findings import headline_findings
from modularity.report.limits import Limits, apply_limits
from modularity.report.palette import category, figure_css
from modularity.report.svg import FIGURE_CSS, drawable, variables

_TEMPLATES = resources.files("modularity.report") / "templates"


def render_report(content: ReportContent, *, limits: Limits | None = None) -> str:
    """The page as HTML text.

    Parameters
    ----------
    content : what to show; empty parts are named as not computed
    limits : caps on rows, texts and cells; what they cut is said on the page

    Returns
    -------
    html : a whole document without any reference outside itself, all text escaped
    """
    shown, cuts = apply_limits(content, limits or Limits())
    drawn = page_figures(shown)
    return render_page(
        "report.html.j2",
        content=shown,
        cuts=cuts,
        findings=headline_findings(content),
        figures={section: [f for f in drawn if f.section == section] for section in _sections(drawn)},
        numbers={figure.name: number for figure, number in _numbered(drawn)},
        colours={name: category(index) for index, name in enumerate(content.function_order())},
        segments=_segments,
        sentence=finding_sentence,
    )


def render_page(template: str, *, scripts: tuple[str, ...] = (), styles: tuple[str, ...] = (), **values: Any) -> str:
    """A template of this package as HTML text, with the style and script of every page and the policy that allows both.

    Parameters
    ----------
    template : file name among the templates
    scripts, styles : further files among the templates, after those of every page
    values : what the template shows; text is escaped
    """
    style = "\n".join([_style(), *map(_template, styles)])
    script = "\n".join(map(_template, ("report.js", *scripts)))
    environment = Environment(
        loader=PackageLoader("modularity.report", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"words": wording, "texts": section_texts}
    page = environment.get_template(template).render(
        **values, style=Markup(style), script=Markup(script), policy=_policy(style, script)
    )
    return str(drawable(page))


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _sections(drawn: tuple[Figure, ...]) -> list[str]:
    known = ("predictivity", "overlap", "experts", "sensitivity", "activity", *section_texts.STUDY_SECTIONS, "training")
    return list(dict.fromkeys((*known, *(figure.section for figure in drawn))))


def _numbered(drawn: tuple[Figure, ...]) -> list[tuple[Figure, int]]:
    """Figures with their numbers; the maps of single layers share one."""
    numbers: list[tuple[Figure, int]] = []
    number, previous = 0, None
    for figure in drawn:
        if figure.layer is None or previous is None or previous.layer is None:
            number += 1
        numbers.append((figure, number))
        previous = figure
    return numbers


def _segments(example: ExampleValue) -> tuple[str, str, str]:
    """Text before, in and after the target span."""
    if example.target is None:
        return example.text, "", ""
    start, stop = example.target
    return example.text[:start], example.text[start:stop], example.text[stop:]


def finding_sentence(finding: Finding) -> Markup:
    """The text of a finding, its subject in bold, with `p = 0.005` and `5 %` kept on one line."""
    tied = finding.text.replace(" = ", "\u00a0=\u00a0").replace(" %", "\u00a0%").replace(" < ", "\u00a0<\u00a0")
    subject = f"{finding.subject}:"
    if not finding.subject or not tied.startswith(subject):
        return escape(tied)
    return Markup("<b>{}</b>{}").format(subject, tied.removeprefix(subject))


def _style() -> str:
    """All styles: colours of both schemes, figures, page."""
    light = f":root{{color-scheme:light dark;{variables(dark=False)}}}{figure_css(dark=False)}"
    swap = ".mark{fill:#111}.mark.on-light{fill:#fff}.cell-text{fill:#111}.cell-text.on-light{fill:#fff}"
    dark = (
        f"@media screen and (prefers-color-scheme:dark){{:root{{{variables(dark=True)}}}{figure_css(dark=True)}{swap}}}"
    )
    return f"{light}\n{FIGURE_CSS}\n{dark}\n{_template('report.css')}"


def _policy(style: str, script: str) -> str:
    """Content security policy: this style, this script, and nothing else."""
    allowed = f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    """Source expression of the content security policy for an inline block with exactly this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
