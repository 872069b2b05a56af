"""`octet review`: look at the inputs that a service keeps for review, label them, and export a data set.

The commands work on the store itself; no server need run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octet.errors import CommandError
from octet.output import AsJson, failing_in_one_line, print_json, print_table

if TYPE_CHECKING:
    from service.review.items import Item
    from service.review.store import Store

app = typer.Typer(no_args_is_help=True, help="The inputs that a service keeps for review.")

COLUMNS = ("id", "model", "version", "answer", "confidence", "ood p", "reasons", "label", "created")
_SUFFIXES = {".png": "image/png", ".wav": "audio/wav", ".txt": "text/plain"}
_ID_SHOWN = 12

StoreUrl = Annotated[
    str,
    typer.Option(
        "--store", envvar="OCTET_REVIEW_URL", help="sqlite:///file, postgresql://… or the path of a file."
    ),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="Of an input, or its first digits.")]
Model = Annotated[str | None, typer.Argument(metavar="[MODEL]", help="By default all.", show_default=False)]


@app.command("list")
def list_items(
    model: Model = None,
    store: StoreUrl = "",
    labelled: Annotated[
        bool | None, typer.Option("--labelled/--unlabelled", help="By default both.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most inputs to list.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the inputs whose answers are the least sure, those first."""
    with _opened(store) as opened:
        items = opened.page(model, labelled=labelled, limit=limit)
        counts = opened.counts(model)
    if as_json:
        print_json([item.render() for item in items])
        return
    print_table(COLUMNS, [_row(item) for item in items])
    typer.echo(f"{len(items)} of {counts.total} inputs, {counts.labelled} of which have a label", err=True)


@app.command("show")
def show(
    item_id: Id,
    store: StoreUrl = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the input there too: .png, .wav or .txt, or its arrays as .npz."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell all that is known of an input, and which labels it can be given; --out writes the input itself."""
    from service.review.export import manifest_of, read_row

    with _opened(store) as opened:
        item = opened.find(item_id)
        manifest = manifest_of(opened, item)
        row = read_row(opened, item)
        if out is not None:
            out.write_bytes(_encode(out, row, manifest))
    shapes = {name: list(array.shape) for name, array in row.items()}
    facts = {**item.render(), "labels": list(manifest.labels), "inputs": shapes}
    if as_json:
        print_json(facts)
    else:
        facts["bundle"] = f"{item.precision} {item.bundle_sha256}"
        print_table(("name", "value"), [{"name": name, "value": value} for name, value in facts.items()])


@app.command("label")
def label(
    item_id: Id,
    label: Annotated[str | None, typer.Argument(help="The right label.", show_default=False)] = None,
    store: StoreUrl = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take the label away instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give an input its right label."""
    from service.review.export import manifest_of

    with _opened(store) as opened:
        if (label is None) != remove:
            raise CommandError("give a label, or --remove to take it away")
        item = opened.find(item_id)
        labels = manifest_of(opened, item).labels
        if label is not None and label not in labels:
            raise CommandError(f"there is no label {label!r}; there are {', '.join(labels)}")
        opened.label(item.id, label)
        changed = opened.get(item.id)
    if as_json:
        print_json(changed.render())
    else:
        print_table(COLUMNS, [_row(changed)])


@app.command("delete")
def delete(
    item_ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Of inputs, or their first digits.")],
    store: StoreUrl = "",
    as_json: AsJson = False,
) -> None:
    """Delete inputs for good."""
    deleted: list[str] = []
    with _opened(store) as opened:
        for item in [opened.find(each) for each in item_ids]:  # all of them are there, or none goes
            opened.delete(item.id)
            deleted.append(item.id)
    if as_json:
        print_json({"deleted": deleted})
    else:
        for each in deleted:
            typer.echo(f"deleted {each}")


@app.command("export")
def export_items(
    model: Annotated[str, typer.Argument(help="NAME, or NAME/VERSION for what one version answered.")],
    file: Annotated[Path, typer.Argument(help="The .npz to write.")],
    store: StoreUrl = "",
    as_json: AsJson = False,
) -> None:
    """Write the labelled inputs of a model as a data set that `octet train --review` reads.

    What was exported may give way to new inputs when the store is full.
    """
    from service.review.export import export

    name, _, version = model.partition("/")
    with _opened(store) as opened:
        if file.suffix.lower() != ".npz":
            raise CommandError(f"{file} must end in .npz")
        partial = file.with_name(f".{file.name}.partial")
        try:
            with partial.open("wb") as content:
                items = export(opened, name, content, version or None)
                content.flush()
                os.fsync(content.fileno())
            partial.replace(file)
        except OSError as error:
            raise CommandError(f"{file} cannot be written: {error.strerror}") from error
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        opened.note_export(items)
    if as_json:
        print_json({"file": str(file), "items": len(items)})
    else:
        typer.echo(f"wrote {len(items)} items to {file}")


@contextmanager
def _opened(url: str) -> Iterator[Store]:
    """Open a store; whatever goes wrong with it or in the command is one line."""
    from service.errors import ServiceError
    from service.review.store import open_store

    with failing_in_one_line():
        if not url:
            raise CommandError("which store? name it with --store or OCTET_REVIEW_URL")
        try:
            with open_store(url) as store:
                yield store
        except ServiceError as error:
            raise CommandError(str(error)) from error


def _row(item: Item) -> dict[str, Any]:
    facts = item.render()
    return {
        **facts,
        "id": item.id[:_ID_SHOWN],
        "ood p": item.novelty_p_value,
        "created": facts["created_at"],
    }


def _encode(out: Path, row: dict[str, Any], manifest: Any) -> bytes:
    from bundle.archive import save_arrays
    from bundle.encoding import encode_media, media_type_of

    suffix = out.suffix.lower()
    if suffix == ".npz":
        return save_arrays(row)
    own = media_type_of(manifest.decoding)
    if own is None or _SUFFIXES.get(suffix) != own:
        known = [".npz", *(each for each, media_type in _SUFFIXES.items() if media_type == own)]
        raise CommandError(f"{out}: this input can be written as {' or '.join(known)}")
    (array,) = row.values()
    return encode_media(array, manifest.decoding)
