"""The page, the findings and the files of a similarity study, against the tables of its run."""

import base64
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from modularity.errors import InputError
from modularity.report import write_figures, write_report
from modularity.report.similarity_content import SimilarityContent
from modularity.report.similarity_explorers import ExplorerLimits, explorers, packed_bytes, packed_shorts
from modularity.report.similarity_export import LINE, WIDTH, _legend, similarity_drawings
from modularity.report.similarity_figures import similarity_figures
from modularity.report.similarity_findings import similarity_findings
from modularity.report.similarity_page import render_similarity
from modularity.store import Manifest, Run, create_run

sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))


@pytest.fixture(scope="module")
def run(similarity_run: Run) -> Run:
    return similarity_run


@pytest.fixture(scope="module")
def content(run: Run) -> SimilarityContent:
    return SimilarityContent(run, "tiny")


def test_findings_have_their_numbers(content: SimilarityContent) -> None:
    found = {finding.subject: finding for finding in similarity_findings(content)}
    assert list(found) == [
        "Residual stream", "Attention output", "FFN output", "Heads", "Streams", "Active heads", "Active experts",
        "Active FFN blocks", "Active attention blocks",
    ]  # fmt: skip
    rows = content.rows("category_scores", data="texts", site="encoder/residual", measure="centred")
    best = max(rows, key=lambda row: row["score"])
    text = found["Residual stream"].text
    assert f"most in depth {best['layer']}: category score {best['score']:.3f}" in text
    assert "With random tokens the score there is" in text
    assert found["Residual stream"].strength == "supported"
    assert all(finding.text.startswith(finding.subject) for finding in found.values())


def test_figures_cover_the_page_and_the_files(content: SimilarityContent) -> None:
    drawn = similarity_figures(content)
    names = {figure.name for figure in drawn}
    assert {"scores", "heads-centred", "heads-cosine", "dimensions", "activity-head", "activity-expert",
            "activity-ffn", "activity-attention", "alignment"} == names  # fmt: skip
    files = similarity_drawings(content, (5,))
    assert names < set(files)
    for name in ("gram-residual-cosine", "gram-ffn-output-scaled-random_tokens", "gram-heads-centred",
                 "projection-residual-pca", "projection-attention-output-potential", "stream-5"):  # fmt: skip
        assert files[name].startswith("<?xml")
        assert "var(--" not in files[name]
    assert files["gram-residual-cosine"].count("<image") == 3
    assert files["projection-residual-pca"].count("<circle") == 3 * 60
    assert files["stream-5"].count('stroke="currentColor"') == 12


def test_score_panels_show_the_table(content: SimilarityContent) -> None:
    (figure,) = (each for each in similarity_figures(content) if each.name == "scores")
    row = content.rows("category_scores", data="texts", site="encoder/residual", measure="centred", layer=1)[0]
    tips = [tip for tip in figure.data["tips"] if tip[0] == "residual stream · layer 1 · centred cosine"]
    assert len(tips) == 1
    assert tips[0][1].startswith(f"score {row['score']:.3f}".replace("-", "−"))


def test_packed_values_come_back() -> None:
    values = np.array([-1.0, 0.25, 0.999])
    back = np.frombuffer(base64.b64decode(packed_bytes(values)), np.int8) / 100
    np.testing.assert_allclose(back, values, atol=0.005)
    text, factor = packed_shorts(1000 * values)
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(text), "<i2") * factor, 1000 * values, atol=0.02)
    assert packed_shorts(np.zeros(2))[1] == 1.0


def test_explorers_hold_the_matrices_of_the_run(content: SimilarityContent) -> None:
    found = explorers(content)
    assert found.cuts == {}
    sets = {entry["key"]: entry for entry in found.gram["sets"]}
    assert list(sets)[:3] == ["encoder/residual|texts", "encoder/attention.output|texts", "encoder/ffn.output|texts"]
    packed = np.frombuffer(base64.b64decode(sets["encoder/residual|texts"]["measures"]["cosine"][2]), np.int8) / 100
    gram = content.gram("texts", "encoder/residual")
    expected = content.similarities(gram, "cosine")[2][np.tril_indices(60)]
    np.testing.assert_allclose(packed, expected, atol=0.0051)
    values = np.frombuffer(base64.b64decode(found.streams["values"][7]), "<i2") * found.streams["factors"][7]
    np.testing.assert_allclose(values.reshape(12, 3), content.streams[:, :, 7], atol=1e-3)
    assert found.streams["listed"][0]["dimension"] == content.best_dimensions[0][0]
    assert {entry["method"] for entry in found.projection["sets"]} == {"PCA", "potential distances (as PHATE)"}


def test_what_does_not_fit_is_said(content: SimilarityContent) -> None:
    limits = ExplorerLimits(gram_bytes=60_000, stream_values=12 * 3 * 4)
    found = explorers(content, limits)
    assert "sets of matrices (controls, heads) are left out" in found.cuts["gram"]
    assert "4 of 32 dimensions are on the page" in found.cuts["streams"]
    assert found.streams["dimensions"] == sorted(d for d, *_ in content.best_dimensions[:4])
    assert found.cuts["gram"] in render_similarity(content, limits)
    assert explorers(content, ExplorerLimits(gram_bytes=1)).gram is None


def test_the_page_is_whole_and_asks_for_nothing(run: Run, tmp_path: Path) -> None:
    (path,) = write_report(run.uri, out=tmp_path / "page.html")
    page = Path(path).read_text()
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert page.count("<script") == page.count("</script>")
    for block in re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL):
        json.loads(block)
    numbers = [int(n) for n in re.findall(r"<b>Figure (\d+)\.", page)]
    assert numbers == list(range(1, 13))
    assert "<dt>Sites</dt><dd>4<span> in 2 layers</span></dd>" in page


def test_files_of_a_run(run: Run, tmp_path: Path) -> None:
    written = write_figures(run.uri, tmp_path / "figures", png_scale=None, dimensions=(3,))
    assert {Path(path).suffix for path in written} == {".svg"}
    assert (tmp_path / "figures" / "stream-3.svg").is_file()
    with pytest.raises(InputError, match="expected numbers from 0 to 31"):
        write_figures(run.uri, tmp_path, png_scale=None, dimensions=(32,))


def test_names_of_categories_take_as_many_lines_as_they_need() -> None:
    def keys(*names: str) -> tuple[list[float], float]:
        parts, lower = _legend(SimpleNamespace(categories=names), 32)
        return [float(re.search(r' x="([\d.]+)"', part)[1]) for part in parts[1::2]], lower

    assert keys("news", "code") == ([19, 77], 0)
    places, lower = keys(*["papers of condensed matter"] * 7)
    assert max(places) + 7 * len("papers of condensed matter") < WIDTH
    assert lower == 2 * LINE


def test_png_files_beside_svg_files(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resvg_py")
    monkeypatch.setattr("modularity.report.writing.similarity_drawings", lambda *_: {
        "one": '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>'})  # fmt: skip
    written = write_figures(run.uri, tmp_path, png_scale=2.0)
    assert [Path(path).name for path in written] == ["one.svg", "one.png"]
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_other_runs_have_no_streams(tmp_path: Path) -> None:
    run = create_run(str(tmp_path / "other"), Manifest.of("perturbation"))
    with pytest.raises(InputError, match="is no similarity study"):
        write_figures(run.uri, tmp_path / "figures", png_scale=None, dimensions=(1,))


def test_text_of_the_data_is_escaped(content: SimilarityContent, monkeypatch: pytest.MonkeyPatch) -> None:
    nasty = "</script><script>window.hacked=1</script>"
    rows = [{**row, "text_id": nasty} for row in content.texts]
    monkeypatch.setitem(content.__dict__, "texts", rows)
    assert nasty not in render_similarity(content)
