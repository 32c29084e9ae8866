"""The page of a study that has several parts: what each found, with a link to its own page."""

from collections.abc import Sequence
from dataclasses import dataclass

from modularity.report.content import Finding
from modularity.report.findings import headline_findings
from modularity.report.page import finding_sentence, render_page
from modularity.report.run_content import model_name, report_content
from modularity.report.run_tight_pass import JOB as TIGHT_PASS
from modularity.report.run_tight_pass import tight_pass_content
from modularity.report.similarity_content import JOB as SIMILARITY
from modularity.report.similarity_content import SimilarityContent
from modularity.report.similarity_findings import similarity_findings
from modularity.store import Run


@dataclass(frozen=True)
class Part:
    """One part of a study."""

    title: str
    link: str
    """Its page, relative to this one."""
    state: str
    findings: tuple[Finding, ...]


def joint_part(run: Run, link: str) -> Part:
    """What the run of a part found."""
    title, findings = _found(run)
    return Part(title, link, run.manifest.state, findings)


def _found(run: Run) -> tuple[str, tuple[Finding, ...]]:
    if run.manifest.job == TIGHT_PASS:
        passes = tight_pass_content(run)
        return passes.title, passes.findings
    if run.manifest.job == SIMILARITY:
        content = SimilarityContent(run, model_name(run))
        return content.title, tuple(similarity_findings(content))
    page = report_content(run)
    return page.title, headline_findings(page)


def render_joint(model: str, parts: Sequence[Part]) -> str:
    """The page as HTML text: a whole document, all text escaped; its only links are those to the pages of the parts."""
    return render_page("joint.html.j2", model=model, parts=parts, sentence=finding_sentence)
