"""`octet data`: the data sets that the recipes train on: list, verify and download them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from octet.errors import CommandError
from octet.output import FAILED, AsJson, DataDir, failing_in_one_line, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="The data sets that the recipes train on.")

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]…", help="By default all.", show_default=False)
]


@dataclass(frozen=True)
class _DataSet:
    """A data set: where its files lie, what they are, and how they are fetched."""

    folder: str
    checksums: Mapping[str, str]
    licence: str
    attribution: str
    fetch: Callable[[Path], None]


@app.command("list")
def list_data(as_json: AsJson = False) -> None:
    """List the data sets, their licences and whose they are."""
    rows = [
        {"name": name, "files": len(each.checksums), "licence": each.licence, "attribution": each.attribution}
        for name, each in _data_sets().items()
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(("name", "files", "licence", "attribution"), rows)


@app.command("verify")
def verify(names: Names = None, data_dir: DataDir = Path("data"), as_json: AsJson = False) -> None:
    """Check that the published files lie in the data directory, unchanged."""
    with failing_in_one_line():
        rows = [_state(name, each, data_dir) for name, each in _chosen(names)]
    _print(rows, as_json=as_json)
    if any(row["state"] != "ok" for row in rows):
        raise typer.Exit(FAILED)


@app.command("download")
def download(names: Names = None, data_dir: DataDir = Path("data"), as_json: AsJson = False) -> None:
    """Download what is missing, verified."""
    rows = []
    with failing_in_one_line():
        for name, each in _chosen(names):
            each.fetch(data_dir)
            rows.append(_state(name, each, data_dir))
    _print(rows, as_json=as_json)


def _data_sets() -> dict[str, _DataSet]:
    from training.data import fsdd, mnist
    from training.data.files import ensure_archive, ensure_files

    return {
        "mnist": _DataSet(
            mnist.FOLDER,
            mnist.CHECKSUMS,
            mnist.LICENCE,
            mnist.ATTRIBUTION,
            lambda data_dir: ensure_files(data_dir / mnist.FOLDER, mnist.CHECKSUMS, mnist.URL),
        ),
        "fsdd": _DataSet(
            fsdd.FOLDER,
            fsdd.checksums(),
            fsdd.LICENCE,
            fsdd.ATTRIBUTION,
            lambda data_dir: ensure_archive(data_dir / fsdd.FOLDER, fsdd.checksums(), fsdd.URL),
        ),
    }


def _chosen(names: list[str] | None) -> Iterable[tuple[str, _DataSet]]:
    known = _data_sets()
    for name in names or known:
        if name not in known:
            raise CommandError(f"there is no data set {name!r}; there are {', '.join(known)}")
    return [(name, known[name]) for name in names or known]


def _state(name: str, each: _DataSet, data_dir: Path) -> dict[str, Any]:
    from training.data.files import missing_files

    missing = missing_files(data_dir / each.folder, each.checksums)
    state = f"{len(missing)} of {len(each.checksums)} files are missing or changed" if missing else "ok"
    return {
        "name": name,
        "folder": str(data_dir / each.folder),
        "files": len(each.checksums),
        "missing": len(missing),
        "state": state,
    }


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(rows)
    else:
        print_table(("name", "folder", "files", "state"), rows)
