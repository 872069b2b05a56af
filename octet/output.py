"""What the commands print: tables for people, JSON for programs, and failures in one line.

Exit codes: 0, it was done; 1, it failed or something was found wrong; 2, the command was not understood.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from bundle.errors import BundleError, InputError
from octet.errors import CommandError
from training.errors import TrainingError

FAILED = 1
# Wide enough for a row where nobody looks: a program that reads tables must not find them wrapped.
_PIPE_WIDTH = 240

Models = Annotated[Path, typer.Option("--models", envvar="OCTET_MODELS", help="The model repository.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Url = Annotated[
    str | None, typer.Option("--url", help="Ask the server there instead, such as http://127.0.0.1:8000.")
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="OCTET_API_KEY",
        help="The key that the server needs. Other users of this machine see it on a command line.",
    ),
]
DataDir = Annotated[
    Path,
    typer.Option("--data-dir", envvar="OCTET_DATA_DIR", help="The data directory, <data dir>/<data set>."),
]


@contextmanager
def failing_in_one_line() -> Iterator[None]:
    """End the command with one line on standard error and exit code 1 where something expected goes wrong."""
    try:
        yield
    except (BundleError, InputError, TrainingError, CommandError, OSError) as error:
        print_error(str(error))
        raise typer.Exit(FAILED) from error


def print_error(message: str) -> None:
    """Print one line on standard error."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)


def print_warning(message: str) -> None:
    """Print one line on standard error that does not make the command fail."""
    typer.echo(f"warning: {' '.join(message.split())}", err=True)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows under the names of their columns; what a row does not have stays empty."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(row.get(column)), style=_style(row, column)) for column in columns))
    console.print(table)


def _style(row: Mapping[str, object], column: str) -> str:
    if column == "state":
        return "green" if row.get(column) in ("ok", "ready") else "red"
    return "cyan" if column in ("name", "label") else ""


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.4f}"
        case int() if not isinstance(value, bool):
            return f"{value:,}"
        case list() | tuple():
            return ", ".join(map(str, value))
        case _:
            return str(value)
