"""Generator of the sample data that ships with the package: word lists and frames in text files, filled by rule.

`python -m modularity.data.sample_generation` writes the files of `modularity/data/samples`, `--check` compares them.
Nothing is random and nothing is taken from a data set, so that the same sources give the same bytes everywhere.
"""

from modularity.data.sample_generation.contrasts import contrast_rows
from modularity.data.sample_generation.knowledge import knowledge_rows
from modularity.data.sample_generation.pairs import inference_rows, pair_rows
from modularity.data.sample_generation.row import Row, to_jsonl

__all__ = ["Row", "generate_files", "generate_rows"]


def generate_rows() -> dict[str, list[Row]]:
    """Rows of every sample file, by file name."""
    return {
        "semantic.jsonl": list(contrast_rows("semantic.txt")),
        "knowledge.jsonl": list(knowledge_rows()),
        "task.jsonl": [*pair_rows(), *contrast_rows("topic.txt")],
        "inference.jsonl": list(inference_rows()),
    }


def generate_files() -> dict[str, str]:
    """Content of every sample file, by file name."""
    return {name: to_jsonl(rows) for name, rows in generate_rows().items()}
