"""`python -m modularity`: the `modularity` command, for where its script is not on the path."""

from modularity.cli import main

if __name__ == "__main__":
    main()
