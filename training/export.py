"""Export a trained network to one self-contained ONNX file that computes what PyTorch computes."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

from bundle.repository import read_bundle
from bundle.session import ORT_ERRORS
from training.config import RecipeConfig
from training.errors import ExportError
from training.onnx_model import OPSET, clean

OUTPUTS = ("logits", "features")


def take_network(bundle: Path, config: RecipeConfig) -> tuple[onnx.ModelProto, str]:
    """Return the fp32 graph of a published bundle and the commit that its weights were fitted at.

    Raises:
        BundleError: the bundle cannot be read.
        ExportError: it was made with another configuration.
    """
    published = read_bundle(bundle)
    provenance = published.manifest.provenance
    if provenance.config_sha256 != config.sha256():
        raise ExportError(f"{bundle} was made with another configuration; its network cannot be taken")
    return onnx.load_model_from_string(published.graph("fp32")), provenance.weights_commit


def export_onnx(
    network: nn.Module, example: tuple[Tensor, ...], inputs: Mapping[str, Sequence[int | str]]
) -> onnx.ModelProto:
    """Export a network in evaluation mode.

    Args:
        network: maps the inputs to (logits, features).
        example: one batch; its free dimensions should be larger than 1, which exporters specialise.
        inputs: input name -> shape, with a string for each free dimension.

    Returns:
        The model, opset 20, with the named free dimensions, all tensors inside, and no trace of the
        machine that exported it.
    """
    free = {size for shape in inputs.values() for size in shape if isinstance(size, str)}
    dims = {name: torch.export.Dim(name) for name in sorted(free)}
    dynamic = tuple(
        {axis: dims[size] for axis, size in enumerate(shape) if isinstance(size, str)}
        for shape in inputs.values()
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated calls
        program = torch.onnx.export(
            network.eval(),
            example,
            input_names=list(inputs),
            output_names=list(OUTPUTS),
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            program.save(path)  # type: ignore[union-attr]  # None only for the old exporter
            model = onnx.load(path)
    return clean(model)


def check_parity(
    network: nn.Module, model: onnx.ModelProto, batches: Iterable[tuple[Tensor, ...]], max_error: float
) -> float:
    """Compare the ONNX model with PyTorch over batches of different sizes and lengths.

    Returns:
        The largest |logit difference| seen.

    Raises:
        ExportError: it is larger than `max_error`, or a batch cannot be run at all.
    """
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    worst = 0.0
    for batch in batches:
        with torch.no_grad():
            expected = network(*batch)[0].numpy()
        feeds: dict[str, Any] = {name: value.numpy() for name, value in zip(names, batch, strict=True)}
        shapes = " and ".join(str(tuple(value.shape)) for value in batch)
        try:
            found = np.asarray(session.run(["logits"], feeds)[0])
        except ORT_ERRORS as error:
            reason = " ".join(str(error).split())[:200]
            raise ExportError(f"inputs of {shapes} cannot be run: {reason}") from error
        if found.shape != expected.shape:
            raise ExportError(
                f"for inputs of {shapes} the ONNX logits are {found.shape}, not {expected.shape}"
            )
        difference = float(np.abs(found - expected).max())
        if not difference <= max_error:
            raise ExportError(
                f"for inputs of {shapes} a logit differs by {difference:.2g}; {max_error:g} is allowed"
            )
        worst = max(worst, difference)
    return worst
