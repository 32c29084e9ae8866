import math
from xml.etree import ElementTree

from modularity.report import svg


def test_elements_escape_attributes_and_children():
    made = svg.element("text", "<script>&", class_='a"b', data_x="'>")
    assert made == '<text class="a&#34;b" data-x="&#39;&gt;">&lt;script&gt;&amp;</text>'


def test_characters_that_xml_forbids_are_replaced():
    made = svg.element("g", "a\x1b[31m\n\0\uffff", svg.element("title", "\x07ü\u2028"), class_="\x08")
    assert ElementTree.fromstring(made).text == "a\ufffd[31m\n\ufffd\ufffd"  # made here
    assert made.count("\ufffd") == 5


def test_ticks_are_round_and_inside():
    assert svg.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert svg.ticks(0, 0.0104, 5) == [0, 0.0025, 0.005, 0.0075, 0.01]
    assert svg.ticks(2, 2) == [2]
    assert svg.tick_labels([0, 0.25, 0.5]) == ["0.00", "0.25", "0.50"]


def test_lines_break_at_missing_values_and_lone_points_stay_visible():
    points = [(0, 1), (1, 2), (2, math.nan), (10, 5)]
    assert svg.polyline(points) == "M0 1L1 2M5 5L15 5"
    assert svg.polyline([(0, math.nan)]) == ""


def test_long_labels_are_cut_and_keep_their_text_in_a_title():
    label = svg.text(0, 0, "a rather long name of a sub-function", limit_px=60)
    assert "…" in label
    assert "<title>a rather long name of a sub-function</title>" in label
    assert "<title>" not in svg.text(0, 0, "short", limit_px=60)


def test_long_labels_break_between_words():
    assert svg.wrapped("significant after correction", 1000) == ["significant after correction"]
    lines = svg.wrapped("significant after correction", 120)
    assert lines == ["significant after", "correction"]
    assert all(svg.text_width(line) <= 120 for line in lines)
    assert svg.wrapped("incomprehensibilities", 20) == ["incomprehensibilities"]
    assert svg.wrapped("", 20) == []


def test_standalone_file_brings_its_style():
    made = svg.standalone(svg.drawing("x", "T", "D", 10, 10, data={"kind": "grid"}))
    assert made.startswith("<?xml")
    assert "<style>text{font-family:" in made
    assert "var(" not in made
    assert '</style><rect width="100%" height="100%" fill="#ffffff"/><title' in made
    assert '<title id="x-title">T</title><desc id="x-desc">D</desc>' in made
