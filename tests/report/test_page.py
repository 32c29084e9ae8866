import re
from dataclasses import replace
from html.parser import HTMLParser

from modularity.report import Limits, Provenance, render_report

EMPTY = dict.fromkeys(
    (
        "curves",
        "heatmaps",
        "overlaps",
        "expert_curves",
        "function_expert_curves",
        "expert_maps",
        "sensitivity",
        "neurons",
        "notes",
    ),
    (),
)


class Tags(HTMLParser):
    """All tags with their attributes, and the text outside scripts and styles."""

    def __init__(self):
        super().__init__()
        self.tags, self.words, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)


def parse(html):
    tags = Tags()
    tags.feed(html)
    return tags


def test_control_characters_of_the_data_do_not_reach_the_page(content):
    neuron = content.neurons[0]
    odd = replace(neuron.highest[0], text="a\x1b[31mred\0 text", target=None)
    changed = replace(content, neurons=(replace(neuron, highest=(odd,)), *content.neurons[1:]))
    page = render_report(changed)
    assert "a\ufffd[31mred\ufffd text" in page
    assert not [letter for letter in set(page) if ord(letter) < 32 and letter not in "\t\n\r"]


def test_page_is_self_contained_and_small(html):
    assert len(html.encode()) < 2_000_000
    for _, attributes in parse(html).tags:
        assert not {"src", "srcset", "data", "action", "background"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    without_namespace = html.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|@import|url\(", without_namespace)


def test_sections_findings_and_numbers_of_figures(html):
    page = parse(html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"findings", "predictivity", "overlap", "experts", "sensitivity", "neurons", "data", "provenance"} <= set(
        ids
    )
    text = "".join(page.words)
    assert "36,864" in text
    assert [f"Figure {n}. " in text for n in (1, 8, 9, 10)] == [True, True, True, False]
    assert "With 199 label permutations no p-value of best neurons can be below 0.005." in text
    assert text.count("Beyond chance") == 3 + 1 + 3
    assert "Beyond random partitions" not in text


def test_every_anchor_has_its_target(html):
    page = parse(html)
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"} <= ids


def test_text_from_data_is_escaped_everywhere(nasty_content):
    plain = parse(render_report(nasty_content))
    tags = [tag for tag, _ in plain.tags]
    assert "img" not in tags
    kinds = [attributes.get("type") for tag, attributes in plain.tags if tag == "script"]
    assert kinds.count(None) == 1
    assert all(not name.startswith("on") for _, attributes in plain.tags for name in attributes)
    assert "".join(plain.words).count("window.hacked=1") > 40
    assert "".join(plain.words).count("{{7*7}}") > 40


def test_only_our_own_script_may_run(html):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html).group(1)
    assert "default-src &#39;none&#39;" in policy
    assert len(re.findall("sha256-", policy)) == 2
    assert "unsafe" not in policy


def test_parts_that_were_not_computed_are_named(build_content):
    empty = build_content(**EMPTY)
    bare = replace(empty, functions=(), provenance=Provenance(()))
    text = "".join(parse(render_report(bare)).words)
    for words in (
        "No numbers to draw findings from",
        "Predictivity was not computed",
        "Overlap was not computed",
        "No experts were computed",
        "sensitivity to the top fraction was not computed",
        "No table of top neurons",
    ):
        assert words in text


def test_single_parts_stand_alone(build_content, content):
    for name in ("curves", "heatmaps", "overlaps", "expert_curves", "expert_maps", "sensitivity", "neurons"):
        html = render_report(build_content(**EMPTY | {name: getattr(content, name)[:1]}))
        assert not re.search(r"\b(nan|None|inf)\b", "".join(parse(html).words))


def test_cuts_are_said_on_the_page(content):
    text = "".join(parse(render_report(content, limits=Limits(neurons=3, expert_cells=400))).words)
    assert "the first 3 of 40 neurons are shown" in text
    assert "Maps are shown for 1 of 12 layers" in text


def test_same_content_same_bytes(content, html):
    assert render_report(content) == html


def test_no_page_calls_values_held_out_that_are_not(content):
    shown = replace(content, held_out=False, expert_maps=())
    assert "held-out" not in render_report(shown).lower()
