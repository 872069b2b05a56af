"""`octet predict`: what a model says of files, here or on a running server."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octet.client import ask
from octet.errors import CommandError
from octet.output import (
    ApiKey,
    AsJson,
    Models,
    Url,
    failing_in_one_line,
    print_json,
    print_table,
    print_warning,
)

if TYPE_CHECKING:
    from bundle.answer import Answer
    from bundle.manifest import Manifest
    from bundle.predictor import Predictor

# Of tensors, in a table; JSON holds all values.
_SHOWN_VALUES = 6


def predict(
    model: Annotated[str, typer.Argument(help="NAME, NAME/VERSION or NAME/ALIAS.")],
    files: Annotated[
        list[Path], typer.Argument(help="Images, sounds, texts, .npy, .npz or .json.", show_default=False)
    ],
    models: Models = Path("models"),
    precision: Annotated[
        str | None, typer.Option("--precision", help="int8 or fp32; by default int8 where there is one.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many labels to show.")] = 3,
    invert: Annotated[
        bool, typer.Option("--invert", help="Swap light and dark of images, as for dark ink on paper.")
    ] = False,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Run a model on files: labels and confidences of a classification, otherwise its outputs."""
    if precision not in (None, "int8", "fp32"):
        raise typer.BadParameter("must be int8 or fp32", param_hint="--precision")
    if url is not None and precision is not None:
        raise typer.BadParameter("is the server's choice", param_hint="--precision")
    with failing_in_one_line():
        if url is not None:
            rows = _ask_server(url.rstrip("/"), api_key, model, files, top, invert=invert)
        else:
            rows = _run_here(models, model, files, precision, top, invert=invert)
    if as_json:
        print_json(rows)
    else:
        _print(rows, top)


def _run_here(
    repository: Path, model: str, files: list[Path], precision: Any, top: int, *, invert: bool
) -> list[dict[str, Any]]:
    from bundle.predictor import load_predictor
    from octet.bundles import find_bundle
    from octet.inputs import read_rows

    logging.getLogger("bundle").setLevel(logging.ERROR)  # its warning is printed below
    predictor = load_predictor(find_bundle(repository, model), precision=precision)
    if predictor.fallback is not None:
        print_warning(f"{predictor.fallback}; {predictor.precision} runs instead")
    manifest = predictor.bundle.manifest
    if precision is not None and precision not in manifest.graphs:
        raise CommandError(f"{model} has no {precision} graph; it has {', '.join(manifest.graphs)}")
    found: list[dict[str, Any]] = []
    for path in files:
        rows = read_rows(path, manifest, invert=invert)
        answers = [answer for row in rows for answer in predictor.answer([row])]
        found += [{"file": str(path), **_describe(predictor, answer, top)} for answer in answers]
    return found


def _describe(predictor: Predictor, answer: Answer, top: int) -> dict[str, Any]:
    manifest = predictor.bundle.manifest
    if manifest.task == "tensors":
        return {"outputs": [_tensor(manifest, spec.name, answer) for spec in manifest.outputs]}
    assessed = answer.confidence
    best = [
        {"label": manifest.labels[i], "probability": assessed.probabilities[i]} for i in assessed.order[:top]
    ]
    calibrated = manifest.graphs[predictor.precision].temperature is not None
    return {**best[0], "calibrated": calibrated, "top": best}


def _tensor(manifest: Manifest, name: str, answer: Answer) -> dict[str, Any]:
    from bundle.deviation import FRACTIONAL, as_numbers

    spec = next(spec for spec in manifest.outputs if spec.name == name)
    array = answer.tensor(name)
    values = as_numbers(spec.datatype, array) if spec.datatype in FRACTIONAL else array
    return {
        "name": name,
        "datatype": spec.datatype,
        "shape": list(array.shape),
        "data": [_plain(each) for each in values.ravel().tolist()],
    }


def _plain(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ask_server(
    url: str, api_key: str | None, model: str, files: list[Path], top: int, *, invert: bool
) -> list[dict[str, Any]]:
    from octet.inputs import read_request

    name, _, wanted = model.partition("/")
    within = "" if not wanted else f"/versions/{wanted}" if wanted.isdecimal() else f"/labels/{wanted}"
    query = f"?top_k={top}" + "&invert=true" * invert
    found: list[dict[str, Any]] = []
    for path in files:
        request = read_request(path)
        call = f"{url}/v1/models/{name}{within}:predict{query}"
        answer = ask(call, request.body, request.headers, api_key)
        for prediction in answer.get("predictions", [answer.get("outputs")]):
            found.append(
                {"file": str(path), **prediction}
                if isinstance(prediction, dict) and "label" in prediction
                else {"file": str(path), "outputs": prediction}
            )
    return found


def _print(rows: list[dict[str, Any]], top: int) -> None:
    if any("label" not in row for row in rows):
        lines = [{"file": row["file"], **line} for row in rows for line in _lines(row["outputs"])]
        print_table(("file", "output", "datatype", "shape", "values"), lines)
        return
    columns = ("file", "label", "confidence", *(["others"] if top > 1 else []))
    print_table(
        columns,
        [
            {
                "file": row["file"],
                "label": row["label"],
                "confidence": row["probability"],
                "others": [f"{each['label']} {each['probability']:.4f}" for each in row["top"][1:]],
            }
            for row in rows
        ],
    )
    if any(row.get("calibrated") is False for row in rows):
        print_warning("no temperature was fitted, so these confidences are what the model says of itself")


def _lines(outputs: Any) -> list[dict[str, Any]]:
    if not isinstance(outputs, list) or not all(
        isinstance(each, dict) and "data" in each for each in outputs
    ):
        return [{"output": "", "values": str(outputs)}]
    return [
        {
            "output": each["name"],
            "datatype": each["datatype"],
            "shape": str(each["shape"]),
            "values": [
                *(
                    f"{value:.6g}" if isinstance(value, float) else value
                    for value in each["data"][:_SHOWN_VALUES]
                ),
                *(["…"] if len(each["data"]) > _SHOWN_VALUES else []),
            ],
        }
        for each in outputs
    ]
