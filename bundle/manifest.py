"""The manifest: everything a server must know about a bundle, as a frozen, versioned schema.

Facts about a model live here and nowhere else: never in a file name, never in a default of the
server. Unknown fields and unknown schema versions are refused, so that a manifest is either
understood whole or not served.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, model_validator

from bundle.datatypes import Datatype
from bundle.errors import ManifestError
from bundle.media import AudioDecoding, Decoding, Frozen, ImageDecoding, TensorDecoding, TextDecoding

MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.npz"
CARD_FILE = "README.md"
# Of the evaluation report, which a bundle may hold: figures for programs, and a page for people.
REPORT_FILE = "report.json"
REPORT_PAGE = "report.html"
SCHEMA_VERSION: Literal[1] = 1
NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$"

Precision = Literal["int8", "fp32"]
ModelName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# A plain name inside the bundle's directory: no separator, no leading dot, so it cannot lead outside.
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")]


class TensorSpec(Frozen):
    """One input or output of a graph.

    Attributes:
        shape: one entry a dimension; a number is fixed, a string names a free dimension. The first is
            "batch" in all tensors of a model whose rows run together, and in none of another's.
        lengths_of: for an int64 input of shape ("batch",): it carries, for each row, how much of
            the named input's free dimension is real; the rest is padding.
        allowed_range: inclusive bounds of the values that the graph was trained for. A tensor
            outside is refused; decoded media are clipped into it.
        optional: an input that may be left out, because the graph holds a default for it.
    """

    name: str
    datatype: Datatype
    shape: tuple[int | str, ...]
    lengths_of: str | None = None
    allowed_range: tuple[float, float] | None = None
    optional: bool = False

    @cached_property
    def row_shape(self) -> tuple[int | str, ...]:
        """Shape of one row: `shape` without its batch dimension, where it has one."""
        return self.shape[1:] if self.batched else self.shape

    @cached_property
    def batched(self) -> bool:
        """Whether its first dimension counts rows."""
        return self.shape[:1] == ("batch",)

    @cached_property
    def free_dimensions(self) -> int:
        """How many dimensions of one row are not fixed."""
        return sum(isinstance(size, str) for size in self.row_shape)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "batch" in self.shape[1:]:
            raise ValueError(f"tensor {self.name!r}: only the first dimension can be 'batch'")
        if any(isinstance(size, int) and size < 1 for size in self.shape):
            raise ValueError(f"tensor {self.name!r}: a fixed dimension must be at least 1")
        if self.allowed_range is not None and not self.allowed_range[0] < self.allowed_range[1]:
            raise ValueError(f"tensor {self.name!r}: allowed_range must grow")
        return self


class SessionConfig(Frozen):
    """How ONNX Runtime runs the graphs.

    Attributes:
        x64quantprecision: compute int8 exactly on x86 processors without VNNI, where uint8 x int8
            products saturate.
        disable_quant_qdq: weight-only int8 (dequantize first, then compute in fp32).
    """

    graph_optimization_level: Literal["disabled", "basic", "extended", "all"] = "all"
    x64quantprecision: bool = False
    disable_quant_qdq: bool = False
    intra_op_threads: int = Field(default=1, ge=1)


class Quantization(Frozen):
    """How the int8 graph was made from the fp32 graph.

    Attributes:
        excluded_nodes: names in the fp32 graph of the heavy nodes that were left in fp32.
    """

    method: Literal["static_qdq", "dynamic", "weight_only"]
    activation_type: Literal["uint8"] = "uint8"
    weight_type: Literal["int8"] = "int8"
    per_channel: bool
    excluded_nodes: tuple[str, ...]


class Temperature(Frozen):
    """Temperature scaling of one graph's logits (Guo et al. 2017): p = softmax(logits / value).

    Attributes:
        method: "temperature_map" where the maximum a posteriori fit was kept; "identity", with a
            `value` of 1, where it did not lower the cross-fitted negative log likelihood or there was
            no error to learn from.
        n: items of the temperature split that it was fitted on; n_errors: how many were wrong.
        ece_before, ece_after: expected calibration error on the test split (15 bins), at 1 and `value`.
    """

    value: float = Field(gt=0)
    method: Literal["temperature_map", "identity"]
    n: int = Field(ge=0)
    n_errors: int = Field(ge=0)
    ece_before: float = Field(ge=0, le=1)
    ece_after: float = Field(ge=0, le=1)


class Metrics(Frozen):
    """What was measured of one graph on the test split, through the predictor that serves it.

    Attributes:
        agreement: share of test items on which the label equals the fp32 graph's.
        latency_ms: batch size -> median milliseconds of one run with one thread.
        mate_shift: largest change of a probability that a search for the worst batch-mates found; None
            where rows never run together, or nothing was searched.
    """

    n: int = Field(gt=0)
    accuracy: float = Field(ge=0, le=1)
    nll: float = Field(ge=0)
    brier: float = Field(ge=0, le=2)
    agreement: float = Field(ge=0, le=1)
    latency_ms: dict[int, float]
    size_bytes: int = Field(gt=0)
    mate_shift: float | None = Field(default=None, ge=0)


class Graph(Frozen):
    """One ONNX file of the bundle and what is known of it.

    Attributes:
        temperature: None where no temperature was fitted; probabilities are then uncalibrated.
        metrics: None where nothing was measured.
    """

    file: FileName
    temperature: Temperature | None = None
    metrics: Metrics | None = None
    quantization: Quantization | None = None


class ReviewedItems(Frozen):
    """Labelled items of a review queue that the network was fitted on beside its data set.

    Attributes:
        sha256: of the file that they came in.
    """

    n: int = Field(gt=0)
    sha256: Sha256


class Provenance(Frozen):
    """Where a bundle comes from.

    Attributes:
        reviewed: what was added to the train split, and to no other; None where nothing was.
        git_commit: of the code that exported, measured and published.
        weights_commit: of the code that fitted the weights; another one where a finished fit was used again.
    """

    recipe: str
    config_sha256: Sha256
    data_sha256: Sha256
    reviewed: ReviewedItems | None = None
    tool_versions: dict[str, str]
    git_commit: str
    weights_commit: str
    measured_on: str
    created_at: datetime


class Manifest(Frozen):
    """The description of one bundle, as it stands in `manifest.json`.

    Attributes:
        task: a "classification" gives "logits", one for each label, and maybe "features"; of "tensors"
            nothing is known but their names, types and shapes.
        labels: of a classification; of "tensors" maybe none.
        max_batch_size: rows that run together at most; 1 where the tensors have no batch dimension.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    schema_version: Literal[1]
    name: ModelName
    version: int = Field(gt=0)
    task: Literal["classification", "tensors"]
    description: str
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)
    decoding: Decoding
    labels: tuple[str, ...]
    graphs: dict[Precision, Graph]
    session: SessionConfig
    max_batch_size: int = Field(ge=1)
    files: dict[FileName, Sha256]
    provenance: Provenance

    @cached_property
    def data_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that callers send: all but the lengths, which the predictor fills in."""
        return tuple(tensor for tensor in self.inputs if tensor.lengths_of is None)

    @cached_property
    def measured_inputs(self) -> frozenset[str]:
        """The inputs whose rows may differ in length, because another input tells their lengths."""
        return frozenset(tensor.lengths_of for tensor in self.inputs if tensor.lengths_of is not None)

    @cached_property
    def batched(self) -> bool:
        """Whether the tensors hold one or more rows; otherwise each request runs alone, as it is."""
        return self.inputs[0].batched

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_tensors(self)
        if "fp32" not in self.graphs:
            raise ValueError("graphs must hold 'fp32'")
        named = {graph.file for graph in self.graphs.values()} | {GOLDEN_FILE, CARD_FILE}
        if missing := sorted(named - set(self.files)):
            raise ValueError(f"files gives no sha256 for {', '.join(missing)}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("a label stands twice in labels")
        return self


def _check_tensors(manifest: Manifest) -> None:
    inputs = {tensor.name: tensor for tensor in manifest.inputs}
    outputs = {tensor.name: tensor for tensor in manifest.outputs}
    if len(inputs) != len(manifest.inputs) or len(outputs) != len(manifest.outputs):
        raise ValueError("a tensor name stands twice")
    _check_batching(manifest)
    if manifest.task == "classification":
        if len(manifest.labels) < 2:
            raise ValueError("a classification needs two labels or more")
        if "logits" not in outputs:
            raise ValueError("the outputs of a classification must hold 'logits'")
        logits = outputs["logits"]
        if (logits.datatype, logits.shape) != ("FP32", ("batch", len(manifest.labels))):
            raise ValueError("logits must be FP32 [batch, number of labels]")
    for tensor in manifest.inputs:
        if tensor.lengths_of is None:
            if tensor.free_dimensions > 1 and manifest.task == "classification":
                raise ValueError(f"input {tensor.name!r} has more than one free dimension a row")
            continue
        measured = inputs.get(tensor.lengths_of)
        if (
            (tensor.datatype, tensor.shape) != ("INT64", ("batch",))
            or measured is None
            or measured.free_dimensions != 1
        ):
            raise ValueError(
                f"input {tensor.name!r} must be INT64 [batch] and name in lengths_of another input "
                "that has a free dimension"
            )
    _check_decoding(manifest)


def _check_batching(manifest: Manifest) -> None:
    tensors = (*manifest.inputs, *manifest.outputs)
    if any(tensor.batched != manifest.batched for tensor in tensors):
        raise ValueError("the first dimension must be 'batch' in all inputs and outputs or in none")
    if not manifest.batched and (manifest.max_batch_size > 1 or manifest.task == "classification"):
        raise ValueError("without a batch dimension no rows run together, and nothing can be classified")
    if manifest.batched and any(tensor.optional for tensor in manifest.inputs):
        raise ValueError("an input can be optional only where there is no batch dimension")


def _check_decoding(manifest: Manifest) -> None:
    """What media are decoded to must be what the graph takes."""
    if isinstance(manifest.decoding, TensorDecoding):
        return
    if len(manifest.data_inputs) != 1:
        raise ValueError("a model that decodes media must have exactly one data input")
    (tensor,) = manifest.data_inputs
    datatype: Datatype
    sizes: tuple[int | None, ...]  # None where the dimension must be free
    match manifest.decoding:
        case ImageDecoding(height=height, width=width, channels=channels):
            datatype, sizes = "UINT8", (height, width) if channels == 1 else (height, width, channels)
        case AudioDecoding():
            datatype, sizes = "FP32", (None,)
        case TextDecoding():
            datatype, sizes = "INT64", (None,)
    found = tuple(None if isinstance(size, str) else size for size in tensor.row_shape)
    if (tensor.datatype, found) != (datatype, sizes):
        raise ValueError(
            f"input {tensor.name!r} is {tensor.datatype} {list(tensor.shape)}, which is not what "
            f"{manifest.decoding.kind} is decoded to"
        )


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """Parse and check the content of a `manifest.json`.

    Args:
        path: where it was read from, for the message.

    Raises:
        ManifestError: it is malformed, of another schema version, or breaks the schema.
    """
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ManifestError(re.sub(r"\s+", " ", f"{path}: {where}: {first['msg']}")) from error
