"""`octet evaluate`: the figures of a bundle, measured anew through the code that serves."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octet.errors import CommandError
from octet.output import AsJson, DataDir, Models, failing_in_one_line, print_json, print_table, print_warning

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bundle.manifest import Manifest
    from bundle.rows import Row

COLUMNS = ("name", "version", "precision", "n", "accuracy", "nll", "brier", "ece", "temperature", "published")


def evaluate(
    model: Annotated[str, typer.Argument(help="NAME, NAME/VERSION or NAME/ALIAS.")],
    models: Models = Path("models"),
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help='.npz of input -> array of items, and "labels"; by default its test split.'
        ),
    ] = None,
    data_dir: DataDir = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Measure both graphs of a classification on the test split of its recipe, or on data of your own."""
    from octet.bundles import find_bundle

    logging.getLogger("bundle").setLevel(logging.ERROR)
    with failing_in_one_line():
        rows = _measure(find_bundle(models, model), data, data_dir)
    if as_json:
        print_json(rows)
    else:
        print_table(COLUMNS, rows)


def _measure(directory: Path, data: Path | None, data_dir: Path) -> list[dict[str, Any]]:
    from bundle.predictor import load_predictor
    from training.scores import score

    first = load_predictor(directory)
    manifest = first.bundle.manifest
    if manifest.task != "classification":
        raise CommandError(f"{directory} is no classification, so there is no accuracy to measure")
    items, labels = _from_file(data, manifest) if data is not None else _test_split(manifest, data_dir)
    found = []
    for precision, graph in manifest.graphs.items():
        predictor = first if precision == first.precision else load_predictor(directory, precision=precision)
        if predictor.precision != precision:
            print_warning(f"{directory}: {predictor.fallback}; {precision} is not measured")
            continue
        scores = score(predictor.run_all(items).logits, labels, predictor.temperature)
        found.append(
            {
                "name": manifest.name,
                "version": manifest.version,
                "precision": precision,
                **asdict(scores),
                "temperature": predictor.temperature,
                "published": None if graph.metrics is None else graph.metrics.accuracy,
            }
        )
    return found


def _from_file(path: Path, manifest: Manifest) -> tuple[list[Row], NDArray[np.int64]]:
    from training.importing.data import read_data

    found = read_data(path, manifest)
    if found.labels is None:
        raise CommandError(f"{path} holds no labels, so nothing can be right or wrong")
    return found.rows, found.labels


def _test_split(manifest: Manifest, data_dir: Path) -> tuple[list[Row], NDArray[np.int64]]:
    from training.data import fsdd, mnist

    loaders = {"mnist-cnn": mnist.load_mnist, "spoken-digits-lstm": fsdd.load_fsdd}
    recipe = manifest.provenance.recipe
    if recipe not in loaders:
        raise CommandError(f"its recipe {recipe!r} has no test split here; give labelled items with --data")
    test = loaders[recipe](data_dir).test
    (tensor,) = manifest.data_inputs
    return [{tensor.name: item} for item in test.items], test.labels
