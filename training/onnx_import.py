"""Bring your own ONNX: make a bundle of any ONNX file that ONNX Runtime can run, and publish it.

Nothing is taken on trust: rows run together only if seeded rows do not change each other's answers, an int8
graph is published only if it passes the gates on data that somebody brought, and what is published reproduces
its golden examples. All results are final before anything is written.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path

from pydantic import ValidationError

from bundle.datatypes import Array
from bundle.errors import GraphError
from bundle.manifest import (
    CARD_FILE,
    GOLDEN_FILE,
    SCHEMA_VERSION,
    Graph,
    Manifest,
    Precision,
    Provenance,
    Quantization,
    SessionConfig,
)
from bundle.media import TensorDecoding
from bundle.predictor import Predictor, create_predictor
from bundle.repository import Bundle
from bundle.rows import Row, collate
from training.data.files import digest_of
from training.errors import GateError, ImportModelError
from training.importing.card import write_import_card
from training.importing.data import Data, read_data
from training.importing.examples import make_golden
from training.importing.gates import Bounds, Figures, check_figures, check_rows, compare, describe_graph
from training.importing.preparation import Prepared, Ranges, prepare
from training.importing.quantizing import Method, quantize
from training.importing.signature import freeze_defaults
from training.importing.source import Source, load_session, read_source
from training.provenance import git_commit, processor_name
from training.publish import digests, next_version, publish

RECIPE = "import"
TOOLS = ("onnx", "onnxruntime", "numpy")
DEFAULT_MAX_BATCH_SIZE = 8
# Most items that give quantization ranges, and most that the gates look at.
MAX_ITEMS = 1024
_NO_DIGEST = "0" * 64


@dataclass(frozen=True)
class ImportOptions:
    """What is to be made of a file.

    Attributes:
        model: the ONNX file.
        name: of the model, and of its folder in the model repository.
        labels: of a classification; none where nothing is known but tensors.
        scores: the output that holds a score for each label, where several could.
        ranges: input -> values that are allowed; "" is for every input of numbers.
        data: an `.npz` file, see `training.importing.data`.
        method: how to quantize, with that data; None for fp32 alone.
        keep_fp32: publish fp32 alone where int8 misses its gates.
    """

    model: Path
    name: str
    labels: tuple[str, ...] = ()
    scores: str | None = None
    ranges: Ranges = field(default_factory=dict)
    data: Path | None = None
    method: Method | None = None
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE
    description: str = ""
    keep_fp32: bool = False
    bounds: Bounds = field(default_factory=Bounds)

    def sha256(self) -> str:
        """Digest of all that decides what is made of the file, but for the file and the data."""
        values = {
            "labels": self.labels,
            "scores": self.scores,
            "ranges": sorted(self.ranges.items()),
            "method": self.method,
            "max_batch_size": self.max_batch_size,
            "bounds": vars(self.bounds),
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Imported:
    """What became of it.

    Attributes:
        directory: of the published bundle.
        manifest: of the bundle.
        notes: what was found out and done, a sentence each.
        figures: of the int8 graph beside the fp32 graph, where one was made.
        refusal: why the int8 graph is not published, or None.
    """

    directory: Path
    manifest: Manifest
    notes: tuple[str, ...]
    figures: Figures | None = None
    refusal: str | None = None


@dataclass(frozen=True)
class _Draft:
    """A bundle before it is finished, and what is known of it so far."""

    bundle: Bundle
    prepared: Prepared
    data: Data | None
    shifts: dict[Precision, float | None] = field(default_factory=dict)
    figures: Figures | None = None
    golden: bytes = b""

    def predictors(self) -> dict[Precision, Predictor]:
        return {p: create_predictor(self.bundle, p) for p in self.bundle.manifest.graphs}


def import_onnx(options: ImportOptions, repository: Path) -> Imported:
    """Make a bundle of an ONNX file and publish it as the next version of its model.

    Raises:
        ImportModelError: the file cannot be served, or not so.
        DataError: the data cannot be read, or do not fit.
        GateError: the int8 graph is not good enough, and `keep_fp32` is not set; nothing is published.
        PublishError: it could not be written.
    """
    try:
        return _import(options, repository)
    except ImportModelError as error:
        raise ImportModelError(f"{options.model}: {error}") from error


def _import(options: ImportOptions, repository: Path) -> Imported:
    if options.method is not None and options.data is None:
        raise ImportModelError("a graph is quantized only with data to judge it by (--calibration-data)")
    source = read_source(options.model)
    frozen = freeze_defaults(source.model) if options.method is not None else []
    if frozen:
        source = replace(source, session=load_session(source.model.SerializeToString()))
    prepared = prepare(source, options.ranges, len(options.labels), options.scores)
    if frozen:
        note = f"{len(frozen)} of its inputs have defaults and became constants."
        prepared = replace(prepared, notes=(*prepared.notes, note))
    fp32 = _draft(options, source, prepared, next_version(repository, options.name))
    data = read_data(options.data, fp32.manifest) if options.data is not None else None
    draft = _check_fp32(_Draft(fp32, prepared, data))
    refusal, figures = None, None
    if options.method is not None:
        try:
            draft = _add_int8(draft, options.method, options.bounds)
        except GateError as error:
            if not options.keep_fp32:
                raise
            refusal = str(error)
        figures = draft.figures
    final, files = _finish(draft, options, refusal)
    return Imported(publish(final, files, repository), final, prepared.notes, figures, refusal)


def _draft(options: ImportOptions, source: Source, prepared: Prepared, version: int) -> Bundle:
    """A bundle of the fp32 graph alone."""
    file = "model.fp32.onnx"
    signature = prepared.signature
    try:
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=options.name,
            version=version,
            task="classification" if options.labels else "tensors",
            description=options.description or f"Imported from {options.model.name}.",
            inputs=signature.inputs,
            outputs=signature.outputs,
            decoding=TensorDecoding(),
            labels=options.labels,
            graphs={"fp32": Graph(file=file)},
            session=SessionConfig(),
            max_batch_size=options.max_batch_size if signature.batched else 1,
            files=dict.fromkeys([file, GOLDEN_FILE, CARD_FILE], _NO_DIGEST),
            provenance=_provenance(options, source),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ImportModelError(f"{where}: {first['msg']}" if where else first["msg"]) from error
    content = prepared.model.SerializeToString()
    return Bundle(Path(options.name) / str(version), manifest, {file: content}, _NO_DIGEST)


def _provenance(options: ImportOptions, source: Source) -> Provenance:
    data = {options.data.name: _file_digest(options.data)} if options.data is not None else {}
    return Provenance(
        recipe=RECIPE,
        config_sha256=options.sha256(),
        data_sha256=digest_of(data),
        tool_versions={tool: version_of(tool) for tool in TOOLS} | {"python": platform.python_version()},
        git_commit=git_commit(),
        weights_commit=f"sha256:{source.sha256}",
        measured_on=processor_name(),
        created_at=datetime.now(UTC).replace(microsecond=0),
    )


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else _NO_DIGEST


def _check_fp32(draft: _Draft) -> _Draft:
    """Check that its rows do not change each other's answers, and make its golden examples."""
    predictors = draft.predictors()
    rows = draft.data.rows[:MAX_ITEMS] if draft.data is not None else []
    shift = check_rows(predictors["fp32"], draft.prepared.sampler, rows)
    return replace(draft, shifts={"fp32": shift}, golden=make_golden(draft.prepared, predictors))


def _add_int8(draft: _Draft, method: Method, bounds: Bounds) -> _Draft:
    """Quantize, and let the int8 graph into the bundle if it passes the gates."""
    assert draft.data is not None
    ranged, judged = draft.data.split()
    bundle = draft.bundle
    model, description, session = quantize(
        draft.prepared.model, method, _batches(bundle.manifest, ranged[:MAX_ITEMS])
    )
    widened = _with_int8(bundle, model.SerializeToString(), description, session)
    both = replace(draft, bundle=widened)
    try:
        predictors = both.predictors()
    except GraphError as error:
        raise ImportModelError(f"its int8 graph cannot be loaded: {error}") from error
    rows = judged.rows[:MAX_ITEMS]
    labels = judged.labels[:MAX_ITEMS] if judged.labels is not None else None
    figures = compare(predictors, rows, labels)
    check_figures(figures, bounds)
    shifts = {**draft.shifts, "int8": check_rows(predictors["int8"], draft.prepared.sampler, rows)}
    return replace(both, shifts=shifts, figures=figures, golden=make_golden(draft.prepared, predictors))


def _with_int8(bundle: Bundle, content: bytes, description: Quantization, session: SessionConfig) -> Bundle:
    file = "model.int8.onnx"
    manifest = bundle.manifest
    graphs = {"int8": Graph(file=file, quantization=description), **manifest.graphs}
    changes = {"graphs": graphs, "session": session, "files": {**manifest.files, file: _NO_DIGEST}}
    return replace(
        bundle, manifest=manifest.model_copy(update=changes), files={**bundle.files, file: content}
    )


def _batches(manifest: Manifest, rows: list[Row]) -> Iterator[dict[str, Array]]:
    for start in range(0, len(rows), manifest.max_batch_size):
        yield collate(manifest, rows[start : start + manifest.max_batch_size])


def _finish(draft: _Draft, options: ImportOptions, refusal: str | None) -> tuple[Manifest, dict[str, bytes]]:
    """Measure what can be measured, and write card and digests."""
    graphs = dict(draft.bundle.manifest.graphs)
    judged = draft.data.split()[1] if draft.data is not None else None
    if judged is not None and judged.labels is not None:
        rows, labels = judged.rows[:MAX_ITEMS], judged.labels[:MAX_ITEMS]
        predictors = draft.predictors()
        for p, each in predictors.items():
            metrics = describe_graph(each, rows, labels, predictors["fp32"], draft.shifts[p])
            graphs[p] = graphs[p].model_copy(update={"metrics": metrics})
    manifest = draft.bundle.manifest.model_copy(update={"graphs": graphs})
    notes = (*draft.prepared.notes, *((f"{refusal}.",) if refusal is not None else ()))
    card = write_import_card(manifest, options.model.name, notes, draft.figures, options.bounds)
    files = {
        **draft.bundle.files,
        GOLDEN_FILE: draft.golden,
        CARD_FILE: card.encode(),
    }
    changed = manifest.model_copy(update={"files": digests(files)})
    return Manifest.model_validate(changed.model_dump()), files
