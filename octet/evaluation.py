"""`octet evaluate`: the figures of a bundle, measured anew through the code that serves, and its report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octet.errors import CommandError
from octet.output import AsJson, DataDir, Models, failing_in_one_line, print_json, print_table, print_warning

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bundle.datatypes import Array
    from bundle.manifest import Manifest, Precision
    from bundle.predictor import Predictor
    from bundle.rows import Row
    from training.data.splits import Examples
    from training.report.answers import Answers

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
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Also write report.json, report.html and gallery.html into this folder."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure both graphs of a classification on the test split of its recipe, or on data of your own."""
    from octet.bundles import find_bundle

    logging.getLogger("bundle").setLevel(logging.ERROR)
    with failing_in_one_line():
        directory = find_bundle(models, model)
        predictors = _load_all(directory)
        manifest = next(iter(predictors.values())).bundle.manifest
        judged = _from_file(data, manifest) if data is not None else _test_split(manifest, data_dir)
        answers = _answer(predictors, judged) if out is None else _report(predictors, judged, out, as_json)
        rows = [_row(predictors[precision], found) for precision, found in answers.items()]
    if as_json:
        print_json(rows)
    else:
        print_table(COLUMNS, rows)


@dataclass(frozen=True)
class _Judged:
    """What a bundle is judged by; see `training.report.answers.Subject`.

    Attributes:
        others: split -> other items that the network was not fitted on.
    """

    rows: Sequence[Row]
    labels: NDArray[np.int64]
    sizes: Mapping[str, int]
    groups: NDArray[np.str_] | None = None
    strangers: Mapping[str, Sequence[Array]] = field(default_factory=dict)
    others: Mapping[str, Examples] = field(default_factory=dict)


def _load_all(directory: Path) -> dict[Precision, Predictor]:
    """Load every graph that works on this machine, the preferred one first."""
    from bundle.predictor import load_predictor

    first = load_predictor(directory)
    manifest = first.bundle.manifest
    if manifest.task != "classification":
        raise CommandError(f"{directory} is no classification, so there is no accuracy to measure")
    found: dict[Precision, Predictor] = {}
    for precision in manifest.graphs:
        predictor = first if precision == first.precision else load_predictor(directory, precision=precision)
        if predictor.precision != precision:
            print_warning(f"{directory}: {predictor.fallback}; {precision} is not measured")
            continue
        found[precision] = predictor
    return found


def _answer(predictors: Mapping[Precision, Predictor], judged: _Judged) -> dict[Precision, Answers]:
    from training.report.answers import answer_all

    return {
        precision: answer_all(predictor, judged.rows, judged.labels)
        for precision, predictor in predictors.items()
    }


def _report(
    predictors: Mapping[Precision, Predictor], judged: _Judged, out: Path, as_json: bool
) -> Mapping[Precision, Answers]:
    """Write the report and the gallery; return the answers that they tell of."""
    from training.report.answers import Subject
    from training.report.gallery import GALLERY_FILE, write_gallery
    from training.report.markup import write_whole
    from training.report.report import make_report

    subject = Subject(predictors, judged.rows, judged.labels, judged.groups, judged.sizes, judged.strangers)
    report = make_report(subject)
    written = []
    for name, content in report.files().items():
        write_whole(out / name, content)
        written.append(out / name)
    if write_gallery(out / GALLERY_FILE, subject, report.answers, judged.others):
        written.append(out / GALLERY_FILE)
    for path in written:
        typer.echo(f"wrote {path}", err=as_json)
    return report.answers


def _row(predictor: Predictor, answers: Answers) -> dict[str, Any]:
    from training.scores import score

    manifest = predictor.bundle.manifest
    metrics = manifest.graphs[predictor.precision].metrics
    return {
        "name": manifest.name,
        "version": manifest.version,
        "precision": predictor.precision,
        **asdict(score(answers.outputs.logits, answers.labels, predictor.temperature)),
        "temperature": predictor.temperature,
        "published": None if metrics is None else metrics.accuracy,
    }


def _from_file(path: Path, manifest: Manifest) -> _Judged:
    from training.importing.data import read_data

    found = read_data(path, manifest)
    if found.labels is None:
        raise CommandError(f"{path} holds no labels, so nothing can be right or wrong")
    return _Judged(found.rows, found.labels, {"test": len(found.rows)})


def _test_split(manifest: Manifest, data_dir: Path) -> _Judged:
    from training.data import fsdd, mnist
    from training.data.notmnist import find_notmnist
    from training.report.gallery import held_out

    loaders = {"mnist-cnn": mnist.load_mnist, "spoken-digits-lstm": fsdd.load_fsdd}
    recipe = manifest.provenance.recipe
    if recipe not in loaders:
        raise CommandError(f"its recipe {recipe!r} has no test split here; give labelled items with --data")
    splits = loaders[recipe](data_dir)
    (tensor,) = manifest.data_inputs
    return _Judged(
        rows=[{tensor.name: item} for item in splits.test.items],
        labels=splits.test.labels,
        sizes={name: len(examples) for name, examples in splits},
        groups=splits.test.groups,
        strangers=find_notmnist(data_dir) if recipe == "mnist-cnn" else {},
        others=held_out(splits),
    )
