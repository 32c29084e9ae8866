"""Results as one self-contained HTML page and as standalone figures; reads plain values only, never a store."""

from modularity.report.content import (
    AgreementMatrix,
    ExampleValue,
    ExpertControl,
    ExpertCurve,
    ExpertMap,
    ExpertTest,
    Finding,
    FunctionCurve,
    FunctionSummary,
    Heatmap,
    OverlapMatrix,
    Provenance,
    ProvenanceGroup,
    ReportContent,
    RunSummary,
    SensitivityCurve,
    SubFunction,
    TopNeuron,
)
from modularity.report.figures import figures
from modularity.report.findings import headline_findings
from modularity.report.limits import Limits
from modularity.report.page import render_report
from modularity.report.run_content import report_content
from modularity.report.writing import REPORT, write_figures, write_joint_report, write_report

__all__ = [
    "REPORT",
    "AgreementMatrix",
    "ExampleValue",
    "ExpertControl",
    "ExpertCurve",
    "ExpertMap",
    "ExpertTest",
    "Finding",
    "FunctionCurve",
    "FunctionSummary",
    "Heatmap",
    "Limits",
    "OverlapMatrix",
    "Provenance",
    "ProvenanceGroup",
    "ReportContent",
    "RunSummary",
    "SensitivityCurve",
    "SubFunction",
    "TopNeuron",
    "figures",
    "headline_findings",
    "render_report",
    "report_content",
    "write_figures",
    "write_joint_report",
    "write_report",
]
