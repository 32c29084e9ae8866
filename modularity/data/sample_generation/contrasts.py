"""Semantic and topic examples: two classes of frames for each sub-function, every frame filled five times.

A class is a sense of an ambiguous word (`semantic.txt`) or a topic (`topic.txt`). Frames go to the halves in turn,
whole, so that no context of the selection half comes back in the evaluation half.
"""

from collections.abc import Iterator

from modularity.data.sample_generation.frames import fill, half_of, read_lines, sentence
from modularity.data.sample_generation.row import Row

N_FILLINGS = 5


def contrast_rows(name: str) -> Iterator[Row]:
    """Rows of `semantic.txt` or `topic.txt`; a word in brackets becomes the target span."""
    subfunction, class_name, label, index = "", "", 1, 0
    for line in read_lines(name):
        if line.startswith("## "):
            subfunction, label = line[3:], 2
        elif line.startswith("= "):
            class_name, label, index = line[2:], label - 1, 0
        else:
            cluster = f"{subfunction}-{class_name}-{index:02d}"
            for filling in range(N_FILLINGS):
                text, target = _split_target(sentence(fill(line, filling)))
                yield Row(f"{cluster}-{filling}", text, subfunction, label, cluster, half_of(index), target=target)
            index += 1


def _split_target(text: str) -> tuple[str, tuple[int, int] | None]:
    """Text without the brackets, and where the bracketed word stands in it."""
    start, end = text.find("["), text.find("]") - 1
    return (text.replace("[", "").replace("]", ""), (start, end)) if start >= 0 else (text, None)
