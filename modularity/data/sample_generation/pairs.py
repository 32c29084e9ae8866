"""Sentiment, acceptability, question and inference examples: minimal pairs, so that a frame tells nothing of the label.

`pairs.txt` holds frames with two sides, `<label 1 ~ label 0>`. `inference.txt` holds two premises and two hypotheses in
each line; each premise meets each hypothesis, so that no sentence alone tells the label. Questions lose their question
mark and statements their full stop: word order has to tell them apart.
"""

import re
from collections.abc import Iterator

from modularity.data.sample_generation.frames import fill, half_of, read_lines, sentence
from modularity.data.sample_generation.row import Row

_SIDES = re.compile(r"<([^<>~]*) ~ ([^<>~]*)>")
N_INFERENCE_FILLINGS = 2


def pair_rows() -> Iterator[Row]:
    """Rows of `pairs.txt`: both sides of every filling of every frame."""
    subfunction, n_fillings, index = "", 0, 0
    for line in read_lines("pairs.txt"):
        if line.startswith("## "):
            subfunction, count = line[3:].split()
            n_fillings, index = int(count), 0
        elif not line.startswith("- "):
            cluster = f"{subfunction}-{index:02d}"
            for filling in range(n_fillings):
                filled = fill(line, filling)
                for label in (1, 0):
                    text = sentence(_SIDES.sub(rf"\{2 - label}", filled), "" if subfunction == "question" else ".")
                    name = f"{cluster}-{filling}-{label}"
                    yield Row(name, text, subfunction, label, cluster, half_of(index // 2))
            index += 1


def inference_rows() -> Iterator[Row]:
    """Rows of `inference.txt`: label 1 where the premise entails the hypothesis, 0 where it contradicts it."""
    for index, line in enumerate(read_lines("inference.txt")):
        cluster = f"inference-{index:02d}"
        for filling in range(N_INFERENCE_FILLINGS):
            parts = [sentence(part) for part in fill(line, filling).split(" / ")]
            for premise in (0, 1):
                for hypothesis in (0, 1):
                    name = f"{cluster}-{filling}-{'ab'[premise]}{'ab'[hypothesis]}"
                    label = int(premise == hypothesis)
                    texts = parts[premise], parts[2 + hypothesis]
                    yield Row(name, texts[0], "inference", label, cluster, half_of(index), text_pair=texts[1])
