"""`python -m modularity.data.sample_generation.planted`: write the files of the planted functions, from their seed."""

from pathlib import Path

from modularity.data.language_functions import write_planted_functions

if __name__ == "__main__":
    write_planted_functions(Path(__file__).parents[1] / "samples")
