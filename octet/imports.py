"""`octet import`: a bundle of any ONNX file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octet.output import AsJson, Models, failing_in_one_line, print_json, print_warning

if TYPE_CHECKING:
    from training.onnx_import import Imported

_METHODS = ("static", "dynamic", "weight-only")


def import_model(
    file: Annotated[Path, typer.Argument(metavar="MODEL.ONNX")],
    name: Annotated[str, typer.Option("--name", help="Name of the model.")],
    models: Models = Path("models"),
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="Labels of a classification: a,b,c or a file of one a line."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", help="The output with a score for each label, if several could.")
    ] = None,
    input_range: Annotated[
        list[str] | None,
        typer.Option(
            "--input-range", help="Values that are allowed: LOW,HIGH or INPUT=LOW,HIGH (repeatable)."
        ),
    ] = None,
    calibration_data: Annotated[
        Path | None,
        typer.Option("--calibration-data", help='.npz of input -> array of items, and maybe "labels".'),
    ] = None,
    quantize: Annotated[
        str | None, typer.Option("--quantize", help="Add an int8 graph: static, dynamic or weight-only.")
    ] = None,
    keep_fp32: Annotated[
        bool, typer.Option("--keep-fp32", help="Publish fp32 alone if the int8 graph is not good enough.")
    ] = False,
    max_batch_size: Annotated[
        int, typer.Option("--max-batch-size", min=1, help="Most rows that are run together.")
    ] = 8,
    description: Annotated[str, typer.Option("--description", help="A sentence about the model.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a bundle of an ONNX file, and publish it as the next version of its model."""
    _check_quantization(quantize, calibration_data)
    ranges = dict(_parse_range(text) for text in input_range or [])
    with failing_in_one_line():
        from training.onnx_import import ImportOptions, import_onnx

        options = ImportOptions(
            model=file,
            name=name,
            labels=_read_labels(labels),
            scores=output,
            ranges=ranges,
            data=calibration_data,
            method=quantize,  # type: ignore[arg-type]  # it was checked above
            max_batch_size=max_batch_size,
            description=description,
            keep_fp32=keep_fp32,
        )
        imported = import_onnx(options, models)
    if as_json:
        print_json(_to_json(imported))
    else:
        _print(imported)


def _check_quantization(method: str | None, data: Path | None) -> None:
    if method not in (None, *_METHODS):
        raise typer.BadParameter(f"must be one of {', '.join(_METHODS)}", param_hint="--quantize")
    if method is not None and data is None:
        raise typer.BadParameter(
            "needs --calibration-data to judge the int8 graph by", param_hint="--quantize"
        )


def _parse_range(text: str) -> tuple[str, tuple[float, float]]:
    """Return (input, range) of `LOW,HIGH` or `INPUT=LOW,HIGH`; the input is "" where none is named."""
    name, _, limits = text.rpartition("=")
    try:
        low, high = (float(part) for part in limits.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not LOW,HIGH", param_hint="--input-range") from error
    if not low < high:
        raise typer.BadParameter(f"{text!r} does not grow", param_hint="--input-range")
    return name, (low, high)


def _read_labels(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    path = Path(text)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    return tuple(label for line in lines if (label := line.strip()))


def _print(imported: Imported) -> None:
    for note in imported.notes:
        typer.echo(note)
    if imported.figures is not None:
        from training.importing.gates import Bounds

        typer.echo(f"int8 beside fp32: {imported.figures.describe(Bounds())}")
    if imported.refusal is not None:
        print_warning(f"{imported.refusal}; fp32 is published alone")
    for side, specs in (("input", imported.manifest.inputs), ("output", imported.manifest.outputs)):
        for spec in specs:
            shape = re.sub(r"[()',]", "", ", ".join(map(str, spec.shape)).replace(", ", " x "))
            typer.echo(f"{side} {spec.name}: {spec.datatype} [{shape}]{' (optional)' * spec.optional}")
    typer.echo(f"published {imported.directory} ({', '.join(imported.manifest.graphs)})")


def _to_json(imported: Imported) -> dict[str, Any]:
    manifest = imported.manifest
    return {
        "directory": str(imported.directory),
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "precisions": list(manifest.graphs),
        "max_batch_size": manifest.max_batch_size,
        "inputs": [spec.model_dump(mode="json") for spec in manifest.inputs],
        "outputs": [spec.model_dump(mode="json") for spec in manifest.outputs],
        "notes": list(imported.notes),
        "figures": None if imported.figures is None else imported.figures.to_json(),
        "refusal": imported.refusal,
    }
