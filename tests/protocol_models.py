"""Models with plain answers for tests of protocols: every datatype, several inputs, scalars, defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from bundle.datatypes import DATATYPES, DTYPES, Datatype
from bundle.manifest import TensorSpec
from bundle.tensor_golden import TensorExample
from tests.tensor_models import publish_tensors

TABLE = np.float32([10, 20, 30])


def make_protocol_models(repository: Path) -> None:
    """Publish all of them."""
    for datatype in DATATYPES:
        make_echo(repository, datatype)
    make_two(repository)
    make_table(repository)
    make_default(repository)


def make_echo(repository: Path, datatype: Datatype) -> None:
    """Publish "echo-<datatype>": y = x, of any shape (batch, m, n)."""
    shape = ("batch", "m", "n")
    x = np.full((1, 1, 2), "a" if datatype == "BYTES" else 1, DTYPES[datatype])
    _publish(repository, f"echo-{datatype.lower()}", [("Identity", "x", "y")], {"x": x}, {"y": x}, shape)


def make_two(repository: Path) -> None:
    """Publish "two": total = a + b and difference = a - b, FP32 (batch, 3)."""
    a, b = np.float32([[1, 2, 3]]), np.float32([[3, 2, 1]])
    nodes = [("Add", "a b", "total"), ("Sub", "a b", "difference")]
    outputs = {"total": a + b, "difference": a - b}
    _publish(repository, "two", nodes, {"a": a, "b": b}, outputs, ("batch", 3))


def make_table(repository: Path) -> None:
    """Publish "table": value = TABLE[index]; a run with an index beyond its end fails."""
    inputs, outputs = {"index": np.array([1])}, {"value": TABLE[[1]]}
    nodes = [("Gather", "entries index", "value")]
    _publish(repository, "table", nodes, inputs, outputs, ("batch",), {"entries": TABLE})


def make_default(repository: Path) -> None:
    """Publish "default", without a batch dimension: z = x + y, of scalars; y is 5 where it is not sent."""
    inputs, constants = {"x": np.float32(1)}, {"y": np.float32(5)}
    specs = (_spec("x", np.float32(1), ()), _spec("y", np.float32(1), (), optional=True))
    publish_tensors(
        repository,
        "default",
        [helper.make_node("Add", ["x", "y"], ["z"])],
        specs,
        (_spec("z", np.float32(1), ()),),
        TensorExample(
            {name: np.asarray(array) for name, array in inputs.items()}, _fp32({"z": np.float32(6)})
        ),
        max_batch_size=1,
        constants={name: np.asarray(array) for name, array in constants.items()},
    )


def _publish(
    repository: Path,
    name: str,
    nodes: list[tuple[str, str, str]],
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    shape: tuple[int | str, ...],
    constants: dict[str, np.ndarray] | None = None,
) -> None:
    datatype: Datatype | None = None
    if name.startswith("echo-"):
        datatype = next(each for each in DATATYPES if each.lower() == name.removeprefix("echo-"))
    publish_tensors(
        repository,
        name,
        [helper.make_node(kind, given.split(), [made]) for kind, given, made in nodes],
        [_spec(key, array, shape, datatype) for key, array in inputs.items()],
        [_spec(key, array, shape, datatype) for key, array in outputs.items()],
        TensorExample(inputs, _fp32(outputs)),
        constants=constants,
    )


def _spec(
    name: str,
    array: Any,
    shape: tuple[int | str, ...],
    datatype: Datatype | None = None,
    *,
    optional: bool = False,
) -> TensorSpec:
    found = datatype or next(
        each for each, dtype in DTYPES.items() if dtype == array.dtype and each != "BF16"
    )
    return TensorSpec.model_validate({"name": name, "datatype": found, "shape": shape, "optional": optional})


def _fp32(outputs: dict[str, Any]) -> Any:
    return {"fp32": {name: np.asarray(array) for name, array in outputs.items()}}
