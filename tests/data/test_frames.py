"""Frames: slots filled by rule, the same on every machine."""

from pathlib import Path

import pytest

from modularity.data.sample_generation import frames
from modularity.data.sample_generation.frames import fill, half_of, read_lines, sentence, stable_rank


def test_fill_moves_all_slots_on_and_fills_equal_slots_alike() -> None:
    frame = "{a|b|c} {d|e} {a|b|c}"
    assert [fill(frame, filling) for filling in range(4)] == ["a d a", "b e b", "c e c", "a d a"]
    assert fill("{who} and {who}", 3).split(" and ")[0] == fill("{who} and {who}", 3).split(" and ")[1]
    assert fill("no slot", 5) == "no slot"


def test_a_slot_that_has_run_out_starts_again_shifted_by_its_place() -> None:
    # The second slot has two options: fillings 0, 1, then round two shifted by one.
    assert [fill("{a|b|c|d} {x|y}", filling)[-1] for filling in range(4)] == ["x", "y", "y", "x"]


def test_shared_lists_start_at_a_place_of_their_own_in_each_frame() -> None:
    names = [fill(f"{{who}} came {number}", 0).split()[0] for number in range(40)]
    assert len(set(names)) > 10
    assert fill("{who} came", 0) == fill("{who} came", 29)  # 29 names


def test_stable_rank_depends_on_the_parts_alone() -> None:
    assert stable_rank("swap", "a") == 0x35252156EC621567  # sha256sum of swap, 0x1f, a
    assert stable_rank("a", "bc") != stable_rank("ab", "c")
    assert stable_rank(1, "x") == stable_rank("1", "x")


@pytest.mark.parametrize(
    ("text", "end", "expected"),
    [("it rains", ".", "It rains."), ("does it?", ".", "Does it?"), ("it rains", "", "It rains"), ("a.", ".", "A.")],
)
def test_sentence_begins_with_a_capital_and_ends_once(text: str, end: str, expected: str) -> None:
    assert sentence(text, end) == expected


def test_halves_alternate() -> None:
    assert [half_of(index) for index in range(3)] == ["selection", "evaluation", "selection"]


def test_lines_without_blank_ones_and_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some.txt").write_text("# comment\n\n## heading\n  a frame \n", encoding="utf-8")
    monkeypatch.setattr(frames, "FOLDER", tmp_path)
    assert list(read_lines("some.txt")) == ["## heading", "a frame"]
