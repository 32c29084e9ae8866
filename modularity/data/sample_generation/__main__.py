"""`python -m modularity.data.sample_generation [--check]`: write the sample files, or check that they are current."""

import argparse
import sys
from pathlib import Path

from modularity.data.sample_generation import generate_files

SAMPLES = Path(__file__).parents[1] / "samples"


def main(arguments: list[str] | None = None, *, folder: Path = SAMPLES) -> int:
    """Write the files into `folder`, or with `--check` report those that differ; 0 when all is well."""
    parser = argparse.ArgumentParser(prog="python -m modularity.data.sample_generation")
    parser.add_argument("--check", action="store_true", help="compare only; exit with 1 if a file differs")
    options = parser.parse_args(arguments)
    files = generate_files()
    if not options.check:
        for name, content in files.items():
            (folder / name).write_bytes(content.encode())
        return 0
    stale = [n for n, text in files.items() if not (folder / n).is_file() or (folder / n).read_bytes() != text.encode()]
    for name in stale:
        sys.stderr.write(f"{name} is not what the generator gives; run python -m modularity.data.sample_generation\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
