"""Options that commands and jobs share, errors as messages, and configs with `--set` put in."""

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from modularity.config import Key, apply_overrides, read_config_file
from modularity.errors import AllowanceError, IdentityError, InputError, ModularityError

INTERRUPTED, TERMINATED = 130, 143


def _whole_number(text: str | int) -> int:
    """Number of an option; its message names the value, which typer's own does not."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number, e.g. 3.") from None


JobFile = Annotated[
    Path, typer.Argument(help="JSON or YAML file with a job's config, or the run.json of a run.", metavar="FILE")
]
RunUri = Annotated[str, typer.Argument(help="Folder or object-store URI of a run.", metavar="RUN")]
OutOption = Annotated[str | None, typer.Option("--out", help="Folder or object-store URI that the run is written to.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override, e.g. --set predictivity.n_permutations=500.", metavar="KEY=VALUE"),
]
ReuseOption = Annotated[
    str | None,
    typer.Option(
        "--reuse", help="Run with the same model, data and capture settings, whose activations are taken over."
    ),
]
PlanOption = Annotated[bool, typer.Option("--plan", help="Print items, bytes, memory, tokens and time, and stop.")]
ProfileOption = Annotated[
    list[str] | None,
    typer.Option(
        "--profile",
        help="With --plan: how the job runs on such machines: a10g, l4, a100-40, a100-80, h100, h200, laptop, all, or "
        "a file; may be repeated.",
        metavar="NAME|FILE",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="RAY_API_SERVER_ADDRESS",
        help="Dashboard of the Ray cluster, e.g. http://127.0.0.1:8265.",
        metavar="URL",
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option("--token", envvar="RAY_AUTH_TOKEN", help="Token of the cluster; better in the environment."),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="parquet, csv, json or table. Default: by the name of --out, else table.",
        metavar="FORMAT",
    ),
]


def number(help: str) -> Any:
    """Option that holds whole numbers."""
    return typer.Option(help=help, parser=_whole_number, metavar="NUMBER")


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn our own errors into one message on stderr and an exit code; anything else is a bug and keeps its trace.

    SIGTERM is an interruption, with exit code 143, whatever a command is doing.
    """
    from modularity.runtime import Terminated, sigterm_interrupts

    try:
        with sigterm_interrupts():
            yield
    except (InputError, AllowanceError, IdentityError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except ModularityError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt as interrupt:
        warnings.simplefilter("ignore", RuntimeWarning)  # of the coroutines that zarr was about to await
        print(" ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        raise typer.Exit(TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED) from None


def with_overrides(
    values: Mapping[str, Any], overrides: Sequence[str] | None, lines: Mapping[Key, str] | None = None
) -> tuple[dict[str, Any], dict[Key, str]]:
    """Values with `--set` put in, and the places of the keys, where an overridden one is `--set`."""
    changed = [override.partition("=")[0].strip().split(".") for override in overrides or []]
    places = {tuple(int(name) if name.isdigit() else name for name in names): "--set" for names in changed}
    return apply_overrides(values, overrides or []), {**(lines or {}), **places}


def read_job(file: Path, overrides: Sequence[str] | None) -> tuple[dict[str, Any], dict[Key, str]]:
    """Config of a job from a file or from the manifest of a run, with `--set` put in, and the places of its keys."""
    values, lines = read_config_file(file)
    if "schema_version" in values and isinstance(values.get("config"), dict):
        values, lines = values["config"], {key[1:]: place for key, place in lines.items() if key[:1] == ("config",)}
    return with_overrides(values, overrides, lines)
