"""Bring a trained network's graphs, figures and facts together into a published bundle.

This is the second half of every recipe, and the same for all: draft, evaluate, golden outputs, card, report,
publish. All results are final before anything is written.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path

import onnx

from bundle.datatypes import Array
from bundle.evidence import ARRAYS_FILE, EVIDENCE_FILE, EvidenceDocument, save_arrays
from bundle.golden import Golden, compute_logits
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
    TensorSpec,
)
from bundle.media import Decoding
from bundle.predictor import create_predictor
from bundle.repository import Bundle, read_bundle
from training.card import CardFacts, write_card
from training.config import RecipeConfig
from training.data.splits import Splits
from training.evaluate import PRECISIONS, Evaluation, evaluate
from training.evidence import gather_evidence
from training.export import take_network
from training.golden import keep_steady
from training.provenance import git_commit, processor_name
from training.publish import digests, next_version, publish
from training.report.answers import SERVED_FIRST, subject_of
from training.report.gallery import held_out, write_gallery
from training.report.report import make_report

logger = logging.getLogger(__name__)

TOOLS = ("torch", "lightning", "onnx", "onnxruntime", "numpy")
# A draft names its files before they have a digest.
_NO_DIGEST = "0" * 64


@dataclass(frozen=True)
class Facts:
    """What a recipe knows of its model that nothing measures; see `bundle.manifest` for most.

    Attributes:
        default_target_risk: share of accepted answers that may be wrong where a caller of `:confidence` names
            none; see `bundle.evidence`.
    """

    description: str
    inputs: tuple[TensorSpec, ...]
    features: int
    decoding: Decoding
    labels: tuple[str, ...]
    max_batch_size: int
    data_sha256: str
    default_target_risk: float
    card: CardFacts


@dataclass(frozen=True)
class Graphs:
    """The two graphs of a bundle, how the second was made, and which code fitted their weights."""

    fp32: onnx.ModelProto
    int8: onnx.ModelProto
    quantization: Quantization
    weights_commit: str


def take_graphs(directory: Path, config: RecipeConfig) -> Graphs:
    """Return both graphs of a published bundle as they are.

    Raises:
        BundleError: the bundle cannot be read.
        ExportError: it was made with another configuration.
    """
    fp32, weights_commit = take_network(directory, config)
    bundle = read_bundle(directory)
    quantization = bundle.manifest.graphs["int8"].quantization
    assert quantization is not None
    return Graphs(fp32, onnx.load_model_from_string(bundle.graph("int8")), quantization, weights_commit)


def assemble(
    config: RecipeConfig,
    facts: Facts,
    graphs: Graphs,
    splits: Splits,
    golden_inputs: dict[str, Array],
    repository: Path,
    *,
    strangers: Mapping[str, Sequence[Array]] | None = None,
    gallery: Path | None = None,
) -> Path:
    """Evaluate and publish a bundle as the next version of its model.

    Args:
        golden_inputs: graph input -> array; made by the project, no items of a data set.
        repository: the model repository.
        strangers: name -> items of other data sets, which the model should find new.
        gallery: file that a page with single items of the data is written to; no part of the bundle.

    Returns:
        The published directory.

    Raises:
        GateError: the int8 graph is not good enough; nothing is published.
        ReportError: the report cannot be made.
        PublishError: it could not be written.
    """
    draft = _draft(config, facts, graphs, next_version(repository, config.name))
    evaluations = evaluate(draft, splits, config.gates)
    golden = keep_steady(
        Golden(
            inputs=golden_inputs,
            logits={
                precision: compute_logits(create_predictor(draft, precision).logits, golden_inputs)
                for precision in PRECISIONS
            },
        ),
        {precision: evaluations[precision].temperature.value for precision in PRECISIONS},
    )
    measured = {
        precision: graph.model_copy(
            update={
                "temperature": evaluations[precision].temperature,
                "metrics": evaluations[precision].metrics,
            }
        )
        for precision, graph in draft.manifest.graphs.items()
    }
    manifest = draft.manifest.model_copy(update={"graphs": measured})
    files = {
        **draft.files,
        **_evidence(draft, facts, splits, evaluations),
        GOLDEN_FILE: golden.save(),
        CARD_FILE: write_card(manifest, facts.card).encode(),
    }
    finished = Bundle(draft.directory, _pin(manifest, files), files, manifest_sha256=_NO_DIGEST)
    files = {**files, **_report(finished, splits, strangers or {}, gallery)}
    return publish(_pin(manifest, files), files, repository)


def _pin(manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Return the manifest of these files."""
    return Manifest.model_validate(manifest.model_copy(update={"files": digests(files)}).model_dump())


def _report(
    finished: Bundle, splits: Splits, strangers: Mapping[str, Sequence[Array]], gallery: Path | None
) -> dict[str, bytes]:
    """The files of the evaluation report; the gallery is written beside."""
    predictors = {precision: create_predictor(finished, precision) for precision in SERVED_FIRST}
    subject = subject_of(predictors, splits, strangers)
    report = make_report(subject)
    if gallery is not None:
        write_gallery(gallery, subject, report.answers, held_out(splits))
    return report.files()


def _evidence(
    draft: Bundle, facts: Facts, splits: Splits, evaluations: Mapping[Precision, Evaluation]
) -> dict[str, bytes]:
    """The files of the evidence behind the confidences of both graphs."""
    split = (
        f"{len(splits.conformal)} items of the training data that were kept for this alone, "
        f"drawn at random like all splits (data {facts.data_sha256[:12]})"
    )
    gathered = {
        precision: gather_evidence(
            create_predictor(draft, precision),
            splits,
            evaluations[precision].temperature.value,
            split,
            facts.default_target_risk,
        )
        for precision in PRECISIONS
    }
    graphs = {precision: found for precision, (found, _) in gathered.items()}
    document = EvidenceDocument(schema_version=1, graphs=graphs)
    return {
        EVIDENCE_FILE: document.model_dump_json(indent=1).encode() + b"\n",
        ARRAYS_FILE: save_arrays({precision: arrays for precision, (_, arrays) in gathered.items()}),
    }


def _draft(config: RecipeConfig, facts: Facts, graphs: Graphs, version: int) -> Bundle:
    """A bundle with graphs and facts, before anything is measured."""
    models: dict[Precision, onnx.ModelProto] = {"int8": graphs.int8, "fp32": graphs.fp32}
    names = {precision: f"model.{precision}.onnx" for precision in models}
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=config.name,
        version=version,
        task="classification",
        description=facts.description,
        inputs=facts.inputs,
        outputs=(
            TensorSpec(name="logits", datatype="FP32", shape=("batch", len(facts.labels))),
            TensorSpec(name="features", datatype="FP32", shape=("batch", facts.features)),
        ),
        decoding=facts.decoding,
        labels=facts.labels,
        graphs={
            "int8": Graph(file=names["int8"], quantization=graphs.quantization),
            "fp32": Graph(file=names["fp32"]),
        },
        session=SessionConfig(),
        max_batch_size=facts.max_batch_size,
        files=dict.fromkeys([*names.values(), GOLDEN_FILE, CARD_FILE], _NO_DIGEST),
        provenance=_provenance(config, facts, graphs),
    )
    files = {names[precision]: model.SerializeToString() for precision, model in models.items()}
    return Bundle(Path(config.name) / str(version), manifest, files, manifest_sha256=_NO_DIGEST)


def _provenance(config: RecipeConfig, facts: Facts, graphs: Graphs) -> Provenance:
    return Provenance(
        recipe=config.name,
        config_sha256=config.sha256(),
        data_sha256=facts.data_sha256,
        reviewed=config.reviewed,
        tool_versions={tool: version_of(tool) for tool in TOOLS} | {"python": platform.python_version()},
        git_commit=git_commit(),
        weights_commit=graphs.weights_commit,
        measured_on=processor_name(),
        created_at=datetime.now(UTC).replace(microsecond=0),
    )
