"""The `modularity` command, and the options that every job in `jobs/` shares.

Exit codes: 0 done; 1 the work or a check failed, or a run is missing or damaged; 2 the input, the plan or the place of
the run was refused before any work; 130 interrupted by Ctrl-C, 143 by SIGTERM.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from modularity import cluster_commands
from modularity.cli_options import FormatOption, JobFile, RunUri, number, read_job
from modularity.cli_options import OutOption as OutOption  # these and the following for the files in jobs/
from modularity.cli_options import PlanOption as PlanOption
from modularity.cli_options import ProfileOption as ProfileOption
from modularity.cli_options import ReuseOption as ReuseOption
from modularity.cli_options import SetOption as SetOption
from modularity.cli_options import readable_errors as readable_errors
from modularity.cli_options import with_overrides as with_overrides
from modularity.errors import InputError
from modularity.launching import check_profiles as check_profiles
from modularity.launching import launch as launch
from modularity.launching import tell_machines as tell_machines

app = typer.Typer(
    name="modularity",
    help="Is this Transformer modular? Run jobs, and look at what they wrote.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

TERMINAL_ROWS = 50


@app.command("run")
def run_command(
    file: JobFile,
    out: OutOption = None,
    reuse: ReuseOption = None,
    plan: PlanOption = False,
    profile: ProfileOption = None,
    overrides: SetOption = None,
) -> None:
    """Run a job from its config file; a run that was interrupted goes on, a finished one is left as it is.

    Example: modularity run job.yaml --out runs/first --set model.dtype=bfloat16
    """
    with readable_errors():
        values, lines = read_job(file, overrides)
        launch(values, out=out, plan=plan, reuse=reuse, lines=lines, profiles=profile)


@app.command()
def verify(
    uri: RunUri,
    rows: Annotated[
        int, number(help="Rows of each function to recompute from the model; 0 = check the store only.")
    ] = 8,
) -> None:
    """Check every stored byte against its record, and recompute a sample of rows from the model; of a scan, each run.

    Example: modularity verify runs/first --rows 16
    """
    with readable_errors():
        if rows < 0:
            raise InputError(f"--rows {rows}: expected 0 or more rows of each function")
        from modularity.pipelines import verify_run, verify_scan
        from modularity.store import is_scan

        reports = verify_scan(uri, n_rows=rows) if is_scan(uri) else (verify_run(uri, n_rows=rows),)
        for report in reports:
            print(report.text())
        if any(report.problems for report in reports):
            raise typer.Exit(1)


@app.command()
def query(
    uri: RunUri,
    function: Annotated[str, typer.Option(help="Function whose activations are read.")],
    site: Annotated[str, typer.Option(help="Site, e.g. ffn.neurons or decoder/ffn.neurons.")] = "ffn.neurons",
    layer: Annotated[list[int] | None, number(help="Layer; may be repeated. Default: all.")] = None,
    neuron: Annotated[list[int] | None, number(help="Neuron; may be repeated. Default: all.")] = None,
    subfunction: Annotated[str | None, typer.Option(help="Only examples of this sub-function.")] = None,
    label: Annotated[int | None, number(help="Only examples with this label, 0 or 1.")] = None,
    example: Annotated[list[str] | None, typer.Option(help="Example id; may be repeated.")] = None,
    limit: Annotated[int | None, number(help="At most this many values, 1 or more.")] = None,
    output_format: FormatOption = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: the terminal.")] = None,
) -> None:
    """Read activations by site, layer, neuron, function, label and example.

    Example: modularity query runs/first --function task --layer 3 --neuron 1203 --label 1 --format csv
    """
    with readable_errors():
        from modularity.store import open_run
        from modularity.store import query as query_run

        table = query_run(
            open_run(uri), site=site, function=function, layer=layer, neuron=neuron, subfunction=subfunction,
            label=label, example=example, limit=limit,
        )  # fmt: skip
        _emit(table, output_format, out)


@app.command()
def sql(
    uri: RunUri,
    statement: Annotated[
        str | None, typer.Argument(help="SQL over the run's tables. Default: list tables and columns.")
    ] = None,
    output_format: FormatOption = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: the terminal.")] = None,
) -> None:
    """Query the tables of a run with SQL (DuckDB, read-only).

    Example: modularity sql runs/first "select function, subfunction, max(ap_evaluation) from best_neurons group by all"
    """
    with readable_errors():
        from modularity.store import is_scan, open_run, open_summary, table_columns
        from modularity.store import sql as sql_run

        run = open_summary(uri) if is_scan(uri) else open_run(uri)
        _emit(table_columns(run) if statement is None else sql_run(run, statement), output_format, out)


@app.command()
def report(
    uri: RunUri,
    out: Annotated[Path | None, typer.Option(help="HTML file to write; default: report.html in the run.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for the figures as SVG files.")] = None,
    scan: Annotated[
        str | None,
        typer.Option(
            help="Finished checkpoint scan to show as a section of the page; default: the one in RUN/series.",
            metavar="SCAN",
        ),
    ] = None,
) -> None:
    """Write the report of a run: one HTML file that needs no network.

    Example: modularity report runs/first --out first.html --figures figures/
    """
    with readable_errors():
        from modularity.report import write_report

        for path in write_report(uri, out=out, figures_folder=figures, scan=scan):
            print(path)


@app.command()
def figures(
    uri: RunUri,
    out: Annotated[Path, typer.Option(help="Folder that the files are written to.")],
    png: Annotated[bool, typer.Option("--png/--no-png", help="Also write PNG files (needs resvg-py).")] = True,
    scale: Annotated[float, typer.Option(help="Pixels of the PNG files for each pixel of the drawing.")] = 3.0,
    dimension: Annotated[
        list[int] | None, number(help="Dimension whose stream is drawn (similarity runs); may be repeated.")
    ] = None,
) -> None:
    """Write every figure of a run as an SVG and a PNG file, for papers.

    Example: modularity figures runs/similarity --out figures --dimension 13
    """
    with readable_errors():
        from modularity.report import write_figures

        for path in write_figures(uri, out, png_scale=scale if png else None, dimensions=tuple(dimension or ())):
            print(path)


def _emit(table: Any, output_format: str | None, out: Path | None) -> None:
    """Write an Arrow table to a file, or as text to the terminal."""
    from modularity.store import table_text, write_table_file

    formats = ("parquet", "csv", "json", "table")
    if output_format is not None and output_format not in formats:
        raise InputError(f"--format {output_format!r} is not known: expected one of {', '.join(formats)}")
    if out is not None:
        if output_format == "table":
            raise InputError("--format table is for the terminal: leave --out away, or choose parquet, csv or json")
        print(f"{table.num_rows:,} rows written to {write_table_file(table, out, format=output_format)}")  # type: ignore[arg-type]
    elif output_format in (None, "table"):
        _print_table(table)
    else:
        print(table_text(table, output_format), end="")  # type: ignore[arg-type]  # checked above


def _print_table(table: Any) -> None:
    """Columns as they fit the terminal; long tables are cut, and the cut is named."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, header_style="bold")
    for name in table.column_names:
        shown.add_column(name)
    for row in table.slice(0, TERMINAL_ROWS).to_pylist():
        shown.add_row(*map(_cell, row.values()))
    width = None if sys.stdout.isatty() else 200
    Console(width=width, markup=False, emoji=False, highlight=False).print(shown)
    if table.num_rows > TERMINAL_ROWS:
        print(f"{TERMINAL_ROWS} of {table.num_rows:,} rows; --out FILE or --format csv gives all", file=sys.stderr)


def _cell(value: Any) -> str:
    """Text of one cell; control characters of the data are shown, not sent to the terminal."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _version(wanted: bool) -> None:
    if wanted:
        from modularity import __version__

        print(f"modularity {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Is this Transformer modular? Run jobs, and look at what they wrote."""


for _command in (cluster_commands.submit, cluster_commands.status, cluster_commands.logs, cluster_commands.stop):
    app.command()(_command)


def run_as_job(command: Callable[..., None], arguments: Sequence[str] | None = None) -> None:
    """Run a function with typer annotations as the command line of a job file."""
    job = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    job.command()(command)
    job(args=list(arguments) if arguments is not None else None)


def main() -> None:
    """Entry point of the `modularity` command."""
    app(prog_name="modularity")
