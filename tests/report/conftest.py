"""A realistic synthetic report: 12 layers, three functions with 8, 6 and 6 sub-functions, 16 experts, 40 neurons."""

import importlib.util
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from modularity.report import (
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
    render_report,
)

LAYERS = tuple(range(12))
NAMES = {
    "semantic": ("bank", "plant", "bat", "spring", "match", "crane", "seal", "pitch"),
    "knowledge": ("capital of", "born in", "currency of", "author of", "part of", "made of"),
    "task": ("sentiment", "acceptability", "topic: sport", "question or statement", "paraphrase", "entailment"),
}
SENTENCES = (
    "The river had risen over the {} before anybody in the village woke up.",
    "She deposited the cheque at the {} on the corner and walked home in the rain.",
    "Nobody had told the committee that the {} was closed for repairs until further notice.",
    "A {} of this kind is seldom seen so far north, the report of the expedition says.",
)


def curve(function, n_subfunctions, rng, *, effect=0.5, layers=LAYERS, p_value=0.005):
    n = len(layers)
    shape = {"semantic": -0.03, "knowledge": 0.0, "task": 0.04}.get(function, 0.0)
    best = effect + shape * (np.arange(n) - n / 2) + rng.normal(0, 0.012, n)
    null = 0.14 + rng.normal(0, 0.004, n)
    return FunctionCurve(
        function, layers, best, best - 0.06, best + 0.055, null, null + 0.035, n_subfunctions, 3072,
        null_low_L=null - 0.03, selection_L=best + 0.04, p_value_L=np.full(n, p_value), p_value=p_value,
    )  # fmt: skip


def heatmaps(rng, names=NAMES, layers=LAYERS, curves=()):
    rows = [(name, function) for function, subs in names.items() for name in subs]
    value = np.clip(rng.beta(3, 4, (len(rows), 1)) + rng.normal(0, 0.08, (len(rows), len(layers))), -0.05, 0.98)
    p = np.where(value > 0.25, 0.005, 0.4)
    groups = np.array([function for _, function in rows])
    mean = np.stack([value[groups == name].mean(axis=0) for name in names])
    mean = np.stack([each.best_L for each in curves]) if curves else mean
    title, subs = "Best neuron of each layer by ", tuple(name for name, _ in rows)
    low, high = value - 0.07, value + 0.07
    sub = Heatmap(
        "subfunctions", f"{title}sub-function", subs, tuple(groups), layers, value, low, high, p, "q", chance=0.16
    )
    whole = Heatmap("functions", f"{title}function", tuple(names), tuple(names), layers, mean, chance=0.14)
    return whole, sub


def overlaps(rng, names=NAMES):
    rows = [(name, function) for function, subs in names.items() for name in subs]
    groups = np.array([function for _, function in rows])
    same = groups[:, None] == groups[None, :]
    value = np.where(same, 0.08, 0.02) + rng.gamma(2, 0.01, (len(rows), len(rows)))
    value = (value + value.T) / 2
    np.fill_diagonal(value, 1.0)
    p = np.where(value > 0.05, 0.002, 0.3)
    off = ~np.eye(len(rows), dtype=bool)
    blocks = np.array([[value[np.outer(groups == a, groups == b) & off].mean() for b in names] for a in names])
    title, subs = "Overlap of the top neurons of ", tuple(name for name, _ in rows)
    sizes = (32 / 3072, 32, 3072, 12)
    sub = OverlapMatrix("subfunctions", f"{title}sub-functions", subs, tuple(groups), value, *sizes, p, "q", 0.005)
    p = np.where(np.eye(len(names)), 0.005, 0.2)
    functions = tuple(names)
    whole = OverlapMatrix(
        "functions", f"{title}functions", functions, functions, blocks, *sizes, p, "p", None, self_pairs=False
    )
    return whole, sub


def expert_curve(function, n_subfunctions, rng, layers=LAYERS, n_experts=16):
    n = len(layers)
    degree = {"semantic": 1.2, "knowledge": 2.6, "task": 4.1}.get(function, 2.0) * np.linspace(0.5, 1, n) + rng.normal(
        0, 0.25, n
    )
    controls = (
        ExpertControl("random partition", np.full(n, 3.57e-4), np.full(n, 0.0249)),
        ExpertControl("shuffled weights", np.full(n, 0.002), np.clip(rng.normal(0.12, 0.08, n), 0, 1)),
    )
    test = ExpertTest(round(4 * n_subfunctions), n * n_subfunctions * n_experts, 0.31, 0.005, 0.02, 0.001)
    sizes = (n_subfunctions, n_experts, 30, 0.001, 0.005)
    return ExpertCurve(function, layers, degree / 45, degree, controls, *sizes, test=test, p_partitions=0.0009)


def expert_map(layer, rng, names=NAMES, n_experts=16):
    rows = [(name, function) for function, subs in names.items() for name in subs]
    homes = {function: rng.choice(n_experts, 2, replace=False) for function in names}
    counts = rng.poisson(1.5, (len(rows), n_experts))
    for index, (_, function) in enumerate(rows):
        counts[index, homes[function]] += rng.poisson(3 + layer / 2, 2)
    functional = counts >= 8
    p = np.clip(np.exp(-counts.astype(float)), 1e-6, 1)
    groups = tuple(function for _, function in rows)
    return ExpertMap(
        layer, tuple(n for n, _ in rows), groups, counts, np.full(n_experts, 30 / n_experts), functional, 30, 0.001, p
    )


def sensitivity(function, degree):
    return SensitivityCurve(
        function, (0.005, 0.01, 0.02, 0.05), np.array([0.02, 0.05, 0.09, 0.14]) * degree / 3,
        np.array([1.3, 1.0, 0.8, 0.55]) * degree, (1.4e-4, 3.57e-4, 5e-4, 6e-4), (0.02, 0.025, 0.03, 0.03), 12,
    )  # fmt: skip


def examples(rng, word, sign, n=6):
    found = []
    for index in range(n):
        text = SENTENCES[(index + len(word)) % len(SENTENCES)].format(word)
        start = text.index(word)
        value = sign * (4.2 - 0.3 * index) + rng.normal(0, 0.05)
        found.append(
            ExampleValue(
                text, float(value), bool(sign > 0) ^ (index == 4), f"{word}-{index:03d}", (start, start + len(word))
            )
        )
    return tuple(found)


def neurons(rng, n=40, names=NAMES):
    rows = [(name, function) for function, subs in names.items() for name in subs]
    found = []
    for index in range(n):
        name, function = rows[index % len(rows)]
        ap = float(np.clip(0.97 - 0.008 * index + rng.normal(0, 0.005), 0.5, 1))
        found.append(
            TopNeuron(
                layer=int(rng.integers(12)),
                neuron=int(rng.integers(3072)),
                function=function,
                subfunction=name,
                polarity=1 if index % 3 else -1,
                ap_selection=ap + 0.012,
                ap_evaluation=ap,
                floor=0.5,
                normalised=2 * ap - 1,
                n_evaluation=120,
                auroc=ap - 0.01,
                q_value=0.0004 * (index + 1),
                low=2 * ap - 1.08,
                high=min(1.0, 2 * ap - 0.93),
                expert=int(rng.integers(16)),
                functional=index % 2 == 0,
                highest=examples(rng, name, 1),
                lowest=examples(rng, name, -1),
            )
        )
    return tuple(found)


def summary(function, names):
    subs = tuple(SubFunction(name, 120, 120, 0.5) for name in names)
    pooling = "maximum over the target word" if function == "semantic" else "maximum over tokens"
    return FunctionSummary(
        function, function, f"sample:{function}", pooling, subs, len(subs) * 240, len(subs) * 4080, 3, 412
    )


MODEL = {
    "name": "t5-base",
    "revision": "a9723ea7f1b39c1eae772870f3b547bf6ef7e6c1",
    "parameter hash": "5a3c9f0e1b7d2468",
}
GROUPS = {
    "Model": MODEL | {"attention": "sdpa", "dtype": "float32"},
    "Data": {"task": "0d1f3a9c55e17b20", "knowledge": "77ac0be1902d4416", "tokens": "81,600", "truncated texts": "9"},
    "Versions": {"modularity": "0.1.0", "torch": "2.9.1", "transformers": "5.20.0", "zarr": "3.1.6"},
    "Seeds": {"data split": "0", "permutations": "0", "experts": "0"},
}
PROVENANCE = Provenance(
    tuple(ProvenanceGroup(title, tuple(pairs.items())) for title, pairs in GROUPS.items()),
    (("Run again", "modularity run run.json --out runs/again"), ("Check the store", "modularity verify runs/first")),
    '{\n  "model": {"name": "t5-base"},\n  "seed": 0\n}',
)


def build_content(*, n_experts=16, names=NAMES, **changes):
    """The whole synthetic report; `changes` replace parts."""
    rng = np.random.default_rng(7)
    curves = tuple(curve(f, len(s), rng) for f, s in names.items())
    parts = {
        "curves": curves,
        "heatmaps": heatmaps(rng, names, curves=curves),
        "overlaps": overlaps(rng, names),
        "expert_curves": tuple(expert_curve(f, len(s), rng, n_experts=n_experts) for f, s in names.items()),
        "function_expert_curves": tuple(expert_curve(f, len(s), rng, n_experts=n_experts) for f, s in names.items()),
        "expert_maps": tuple(expert_map(layer, rng, names, n_experts) for layer in LAYERS),
        "sensitivity": tuple(sensitivity(f, d) for f, d in zip(names, (1.2, 2.6, 4.1))),
        "neurons": neurons(rng, names=names),
        "notes": ("9 of 4,800 texts were longer than 512 tokens and were cut.",),
    }
    parts.update(changes)
    run = RunSummary("t5-base", "encoder/ffn.neurons", LAYERS, 36_864, 199, n_experts, 0.05, "2026-11-22")
    functions = tuple(summary(function, subs) for function, subs in names.items())
    return ReportContent("Functional experts of t5-base", run, functions, PROVENANCE, **parts)


NASTY = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'&{{7*7}}\u2028"


def build_nasty(content):
    """The report with the nasty string in every text field."""
    neuron = replace(
        content.neurons[0], function=NASTY, subfunction=NASTY,
        highest=(ExampleValue(NASTY, 1.0, True, NASTY, (3, 20)),), lowest=(ExampleValue(NASTY, 0.0, None, NASTY),),
    )  # fmt: skip
    names, groups = (NASTY,) * 20, (NASTY,) * 20
    control = replace(content.expert_curves[0].controls[0], name=NASTY)
    return ReportContent(
        title=NASTY,
        run=RunSummary(NASTY, NASTY, (0,), 5, 3, 4, created=NASTY),
        functions=(FunctionSummary(NASTY, NASTY, NASTY, NASTY, (SubFunction(NASTY, 1, 1, 0.5),), 1, 1, 1, 1),),
        provenance=Provenance((ProvenanceGroup(NASTY, ((NASTY, NASTY),)),), ((NASTY, NASTY),), NASTY),
        curves=tuple(replace(each, function=NASTY) for each in content.curves[:1]),
        heatmaps=(replace(content.heatmaps[1], title=NASTY, row_names=names, row_groups=groups, p_name=NASTY),),
        overlaps=(
            replace(content.overlaps[1], title=NASTY, names=names, groups=groups, p_name=NASTY, statistic=NASTY),
        ),
        expert_curves=(replace(content.expert_curves[0], function=NASTY, controls=(control,)),),
        function_expert_curves=(replace(content.expert_curves[0], function=NASTY, criterion=NASTY),),
        expert_maps=(replace(content.expert_maps[0], row_names=names, row_groups=groups),),
        sensitivity=(replace(content.sensitivity[0], function=NASTY),),
        neurons=(neuron,),
        metric=NASTY,
        interval=NASTY,
        notes=(NASTY,),
        findings=(Finding(NASTY, "descriptive", NASTY),),
    )


@pytest.fixture(name="build_content")
def _build_content():
    return build_content


@pytest.fixture(scope="session", name="content")
def _content():
    return build_content()


@pytest.fixture(scope="session")
def html(content):
    return render_report(content)


@pytest.fixture(scope="session")
def parts():
    """The makers of single parts, by name."""
    return {
        "curve": curve,
        "overlaps": overlaps,
        "heatmaps": heatmaps,
        "expert_map": expert_map,
        "expert_curve": expert_curve,
    }


@pytest.fixture(scope="session")
def nasty_content(content):
    return build_nasty(content)


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium; without one the tests are skipped, or fail where MODULARITY_REQUIRE_BROWSER=1 asks for it."""
    executable = next((path for path in map(shutil.which, BROWSERS) if path), None)
    missing = f"no Chromium: none of {', '.join(BROWSERS)} is on the path" if executable is None else None
    if importlib.util.find_spec("playwright") is None:
        missing = "the package playwright is not installed"
    if missing is not None:
        (pytest.fail if os.environ.get("MODULARITY_REQUIRE_BROWSER") == "1" else pytest.skip)(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, address):
    """Opens the page at the module's `address` and, at the end, checks that it asked for nothing and complained of
    nothing."""
    seen = []

    def visit(*, width=1280, height=900, target=address, **options):
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        page.on("console", lambda message: seen.append((page, "console", message.text)))
        page.on("pageerror", lambda error: seen.append((page, "error", str(error))))
        page.on("request", lambda request: seen.append((page, "request", request.url)))
        page.goto(target)
        return page

    yield visit
    pages = {page for page, _, _ in seen}
    assert [(kind, text) for _, kind, text in seen if kind != "request"] == []
    assert all(sum(kind == "request" and owner is page for owner, kind, _ in seen) == 1 for page in pages)
    for page in pages:
        page.close()


@pytest.fixture(scope="session")
def tip_over():
    """Text of the tooltip after pointing at a place of a drawing, given in its own units.

    A pointer event reaches the page with a later frame, and one that arrives before the layout is settled hits nothing:
    it is sent again until the tooltip is rendered.
    """

    def text(page, drawing, x: float, y: float) -> str:
        tip = page.locator("#tip")
        drawing.scroll_into_view_if_needed()
        page.mouse.move(0, 0)
        tip.wait_for(state="hidden")
        for _ in range(100):
            box = drawing.bounding_box()
            page.mouse.move(box["x"] + x, box["y"] + y)
            page.wait_for_timeout(50)
            if tip.is_visible():
                return tip.inner_text()
            page.mouse.move(0, 0)
        raise AssertionError(f"no tooltip at {x}, {y} of {drawing}")

    return text
