"""The predictor: one verified bundle, ready to turn rows into logits.

Training measures its published figures through this class and the service answers requests through
it, so the figures are those of the code that serves.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bundle.answer import Answer, Outputs, Run
from bundle.datatypes import DTYPES, Array
from bundle.errors import EvidenceError, GoldenError, GraphError, ProviderError
from bundle.evidence import ARRAYS_FILE, EVIDENCE_FILE, Evidence, load_evidence
from bundle.golden import Golden
from bundle.manifest import Precision, SessionConfig
from bundle.repository import Bundle, read_bundle
from bundle.rows import Row, collate, size_of
from bundle.self_test import check_self, read_golden
from bundle.session import (
    ORT_ERRORS,
    Provider,
    ProviderPolicy,
    check_signature,
    choose_provider,
    create_session,
    default_precision,
    run_session,
)
from bundle.tensor_golden import TensorGolden
from bundle.trusted import TrustedDigests

logger = logging.getLogger(__name__)

# Size of the free dimension of the warm-up rows: half a second of speech.
_WARM_UP_LENGTH = 4_000
# Quick to load, for a graph that is looked at and not run.
_UNOPTIMIZED = SessionConfig(graph_optimization_level="disabled")


@dataclass(frozen=True)
class Predictor:
    """A loaded bundle. `load_predictor` makes one that is proven; threads may share it.

    Attributes:
        bundle: what was read and verified.
        session: of the graph that runs.
        precision: the graph that runs.
        provider: the execution provider that runs it.
        fallback: why this is not the graph or setting that the manifest prefers, or None.
        evidence: behind the confidences of the graph that runs, or None where the bundle has none.
    """

    bundle: Bundle
    session: ort.InferenceSession
    precision: Precision
    provider: Provider
    fallback: str | None = None
    evidence: Evidence | None = None

    @property
    def temperature(self) -> float:
        """The temperature of the graph that runs; 1 where none was fitted."""
        fitted = self.bundle.manifest.graphs[self.precision].temperature
        return fitted.value if fitted is not None else 1.0

    def rows(self, items: Sequence[Array]) -> list[Row]:
        """Turn decoded items of the only data input into rows, as they are."""
        (tensor,) = self.bundle.manifest.data_inputs
        return [{tensor.name: item} for item in items]

    def run(self, rows: Sequence[Row]) -> Outputs:
        """Run rows together, at most the manifest's `max_batch_size` of them.

        Args:
            rows: as the functions of `bundle.rows` give them, at least one.
        """
        return self.run_feeds(self._collate(rows))

    def run_all(self, rows: Sequence[Row]) -> Outputs:
        """Run any number of rows, in batches of at most `max_batch_size`."""
        size = self.bundle.manifest.max_batch_size
        parts = [self.run(rows[start : start + size]) for start in range(0, len(rows), size)]
        names = parts[0].arrays
        return Outputs({name: np.concatenate([part.arrays[name] for part in parts]) for name in names})

    def run_feeds(self, feeds: dict[str, Array]) -> Outputs:
        """Run collated graph inputs."""
        return Outputs(
            run_session(self.session, self.bundle.manifest.inputs, self.bundle.manifest.outputs, feeds)
        )

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """Run rows together as `run` does; return each one's answer."""
        manifest = self.bundle.manifest
        began_s = time.perf_counter()
        feeds = self._collate(rows)
        collated_s = time.perf_counter()
        outputs = self.run_feeds(feeds)
        took_s = time.perf_counter() - collated_s
        run = Run(outputs, self.temperature, collated_s - began_s, took_s, self.evidence, began_s, len(rows))
        return [Answer(run, i if manifest.batched else None) for i in range(len(rows))]

    def _collate(self, rows: Sequence[Row]) -> dict[str, Array]:
        manifest = self.bundle.manifest
        if not 1 <= len(rows) <= manifest.max_batch_size:
            raise ValueError(f"{len(rows)} rows; 1 to {manifest.max_batch_size} run together")
        return collate(manifest, rows)

    def logits(self, feeds: dict[str, Array]) -> NDArray[np.float32]:
        """Run collated graph inputs; return the logits alone."""
        return self.run_feeds(feeds).logits

    def check_self(self, golden: Golden | TensorGolden) -> None:
        """Check that the graph reproduces golden examples on this machine.

        Raises:
            GoldenError: it does not; the message gives the figure.
        """
        manifest = self.bundle.manifest
        check_self(
            golden, manifest, self.precision, self.temperature, lambda feeds: self.run_feeds(feeds).arrays
        )

    def warm_up(self) -> float:
        """Run the smallest and the largest batch or all sizes, so that no caller pays for what comes first.

        Returns:
            Seconds that a run of the largest batch takes on this machine for each element of its rows;
            infinite where that is not known.

        Raises:
            GraphError: the graph cannot run them.
        """
        if self.bundle.manifest.task == "tensors":
            return self._warm_up_tensors()
        row: Row = {
            tensor.name: np.zeros(
                [size if isinstance(size, int) else _WARM_UP_LENGTH for size in tensor.row_shape],
                dtype=DTYPES[tensor.datatype],
            )
            for tensor in self.bundle.manifest.data_inputs
        }
        try:
            largest = [row] * self.bundle.manifest.max_batch_size
            for size in self._sizes_to_warm():
                self.run(largest[:size])
            began_s = time.perf_counter()
            self.run(largest)
            return (time.perf_counter() - began_s) / (len(largest) * size_of(row))
        except ORT_ERRORS as error:
            raise self._cannot_run(error) from error

    def _warm_up_tensors(self) -> float:
        """Which sizes and values a graph takes, only its golden inputs tell."""
        manifest = self.bundle.manifest
        golden = read_golden(self.bundle)
        assert isinstance(golden, TensorGolden)
        examples = golden.examples
        try:
            for example in examples:
                self.run_feeds(example.inputs)
            if not manifest.batched:
                return math.inf
            for size in self._sizes_to_warm():
                largest = {name: np.repeat(array, size, axis=0) for name, array in examples[0].inputs.items()}
                self.run_feeds(largest)
            began_s = time.perf_counter()
            self.run_feeds(largest)
            took_s = time.perf_counter() - began_s
        except ORT_ERRORS as error:
            raise self._cannot_run(error) from error
        elements = sum(array.size for array in largest.values())
        # What another size takes, one size does not tell of a graph that is not known.
        sizes_vary = any(tensor.free_dimensions for tensor in manifest.inputs)
        return math.inf if sizes_vary or not elements else took_s / elements

    def _sizes_to_warm(self) -> list[int]:
        """Other providers than the CPU's compile a graph for each size when they first meet it."""
        largest = self.bundle.manifest.max_batch_size
        return sorted({1, largest}) if self.provider == "cpu" else list(range(1, largest + 1))

    def _cannot_run(self, error: Exception) -> GraphError:
        file = self.bundle.directory / self.bundle.manifest.graphs[self.precision].file
        return GraphError(f"{file}: it cannot be run: {' '.join(str(error).split())[:200]}")


def create_predictor(
    bundle: Bundle,
    precision: Precision,
    provider: Provider = "cpu",
    config: SessionConfig | None = None,
    fallback: str | None = None,
    callers: int = 1,
) -> Predictor:
    """Create a predictor without the golden self-test, as a job needs it before there is one.

    Args:
        config: other session options than the manifest's.
        callers: threads that will run it at the same time.

    Raises:
        GraphError: the graph cannot be loaded or disagrees with the manifest.
        ProviderError: ONNX Runtime does not run it on this provider.
        EvidenceError: the evidence behind its confidences is damaged or another graph's.
    """
    manifest = bundle.manifest
    try:
        session = create_session(
            bundle.graph(precision),
            config or manifest.session,
            provider,
            callers=callers,
            lengths_vary=any(tensor.free_dimensions for tensor in manifest.data_inputs),
        )
        check_signature(session, manifest.inputs, manifest.outputs)
    except GraphError as error:
        raise GraphError(f"{bundle.directory / manifest.graphs[precision].file}: {error}") from error
    return Predictor(bundle, session, precision, provider, fallback, _read_evidence(bundle, precision))


def _read_evidence(bundle: Bundle, precision: Precision) -> Evidence | None:
    """Read what proves the confidences of a graph, and see that it is of this one and no other."""
    if not {EVIDENCE_FILE, ARRAYS_FILE} <= set(bundle.files):
        return None
    manifest = bundle.manifest
    graph = manifest.graphs[precision]
    try:
        evidence = load_evidence(
            bundle.files[EVIDENCE_FILE], bundle.files[ARRAYS_FILE], precision, manifest.files[graph.file]
        )
        if evidence is None:
            return None
        temperature = graph.temperature.value if graph.temperature is not None else None
        if evidence.facts.temperature != temperature:
            raise EvidenceError(f"{EVIDENCE_FILE}: its {precision} part is of another temperature")
        if len(evidence.facts.confusion) != len(manifest.labels):
            raise EvidenceError(f"{EVIDENCE_FILE}: its {precision} part is of other labels")
    except EvidenceError as error:
        raise EvidenceError(f"{bundle.directory}: {error}") from error
    return evidence


def load_predictor(
    directory: Path,
    policy: ProviderPolicy = "cpu",
    precision: Precision | None = None,
    callers: int = 1,
    trusted: TrustedDigests | None = None,
) -> Predictor:
    """Read, verify, load and self-test a bundle.

    An int8 graph that does not reproduce its golden outputs on this processor is tried again with
    exact x86 int8 arithmetic; after that the fp32 graph serves. Both are logged as a warning and
    stand in the predictor's `fallback`.

    Args:
        directory: `models/<name>/<version>`.
        policy: which execution provider to use.
        precision: the graph to load; by default int8, and fp32 on CUDA.
        callers: threads that will run it at the same time.
        trusted: the bundles that may be served; None for any.

    Raises:
        BundleError: the bundle cannot be served; the message names the file and the reason.
    """
    bundle = read_bundle(directory)
    if trusted is not None:
        trusted.check(bundle)
    provider = choose_provider(policy)
    fallback = None
    if provider == "openvino" and _is_dynamic(bundle):
        provider, fallback = "cpu", "dynamic int8 stays on the CPU provider, whose LSTM is the faster one"
    try:
        predictor = _load_best(bundle, provider, precision, callers, fallback)
    except (ProviderError, GoldenError) as error:
        if provider == "cpu" or policy.startswith("require"):
            raise
        predictor = _load_best(bundle, "cpu", precision, callers, fallback=str(error))
    for other in bundle.manifest.graphs:
        if other != predictor.precision:  # it must agree with the manifest too: it may be needed later
            create_predictor(bundle, other, config=_UNOPTIMIZED)
    if predictor.fallback is not None:
        what = (directory, predictor.fallback, predictor.precision, predictor.provider)
        logger.warning("%s: %s; serving %s on %s instead", *what)
    return predictor


def _is_dynamic(bundle: Bundle) -> bool:
    """Whether the int8 graph of a bundle takes its activation scales as it runs."""
    int8 = bundle.manifest.graphs.get("int8")
    return int8 is not None and int8.quantization is not None and int8.quantization.method == "dynamic"


def _load_best(
    bundle: Bundle,
    provider: Provider,
    precision: Precision | None,
    callers: int,
    fallback: str | None = None,
) -> Predictor:
    """Try the wanted graph, then exact int8 arithmetic, then fp32."""
    wanted = precision or default_precision(provider)
    if wanted not in bundle.manifest.graphs:
        wanted = "fp32"
    config = bundle.manifest.session
    attempts: list[tuple[Precision, SessionConfig]] = [(wanted, config)]
    if wanted == "int8":
        exact = config.model_copy(update={"x64quantprecision": True})
        attempts += [("int8", exact), ("fp32", config)]
    golden = read_golden(bundle)
    for attempt, options in attempts:
        predictor = create_predictor(bundle, attempt, provider, options, fallback, callers)
        try:
            predictor.check_self(golden)
        except GoldenError as error:
            fallback = str(error)
        else:
            return predictor
    raise GoldenError(f"{bundle.directory}: {fallback}")
