from collections import Counter
from typing import Any

from modularity.data import FunctionConfig
from modularity.data.drafts import Draft
from modularity.data.duplicates import without_duplicates
from modularity.data.problems import Problems


def draft(text: str, label: str = "0", line: int = 0, **fields: Any) -> Draft:
    values: dict[str, Any] = {"text_pair": None, "subfunction": None, "target": None, "position": None}
    values |= {"half": None, "cluster": None} | fields
    return Draft(id=str(line), text=text, label=label, source=f"x:{line}", **values)


def kept(drafts: list[Draft]) -> tuple[list[str], dict[str, int]]:
    """Sources that stay under "drop", and the counts; "error" must find as many."""
    left_out: Counter[str] = Counter()
    config = FunctionConfig(name="demo", source="x", duplicates="drop")
    result = without_duplicates(drafts, config, Problems(), left_out)
    problems = Problems()
    assert without_duplicates(drafts, config.replace(duplicates="error"), problems, Counter()) == drafts
    assert problems.count() == left_out.total() == len(drafts) - len(result)
    return [one.source for one in result], dict(left_out)


def test_the_first_copy_stays() -> None:
    assert kept([draft("a", line=1), draft("b", line=2), draft("a", line=3), draft("a", line=4)]) == (
        ["x:1", "x:2"],
        {"repeated examples": 2},
    )


def test_contradictory_copies_all_go() -> None:
    assert kept([draft("a", "0", 1), draft("b", line=2), draft("a", "1", 3), draft("a", "1", 4)]) == (
        ["x:2"],
        {"contradictory copies": 3},
    )


def test_pair_subfunction_span_and_position_tell_examples_apart() -> None:
    drafts = [
        draft("a"),
        draft("a", "1", text_pair="b"),
        draft("a", "1", subfunction="bat"),
        draft("a", "1", target=(0, 1)),
        draft("a", "1", position=2),
    ]
    assert kept(drafts)[1] == {}


def test_of_copies_across_halves_the_evaluation_copy_stays() -> None:
    drafts = [
        draft("a", line=1, half="selection"),
        draft("a", line=2, half="evaluation"),
        draft("a", line=3, half="evaluation"),
    ]
    assert kept(drafts) == (["x:2"], {"copies across the halves": 1, "repeated examples": 1})


def test_another_span_of_the_same_text_may_not_be_in_the_other_half() -> None:
    drafts = [
        draft("a b", "0", 1, half="selection", target=(0, 1)),
        draft("a b", "1", 2, half="evaluation", target=(2, 3)),
        draft("a b", "1", 3, half="selection", target=(2, 3), subfunction="other"),
    ]
    assert kept(drafts) == (["x:2", "x:3"], {"copies across the halves": 1})
