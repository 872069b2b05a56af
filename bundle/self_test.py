"""The self-test: a graph reproduces its golden examples, of the kind that its task has, before it serves."""

from __future__ import annotations

from collections.abc import Callable

from bundle.datatypes import Array
from bundle.errors import GoldenError
from bundle.golden import Golden, check_golden, load_golden
from bundle.manifest import GOLDEN_FILE, Manifest, Precision
from bundle.repository import Bundle
from bundle.tensor_golden import TensorGolden, check_tensor_golden, load_tensor_golden


def read_golden(bundle: Bundle) -> Golden | TensorGolden:
    """Read the golden examples of a bundle.

    Raises:
        GoldenError: they cannot be read; the message names the directory.
    """
    content = bundle.files[GOLDEN_FILE]
    try:
        return (
            load_golden(content) if bundle.manifest.task == "classification" else load_tensor_golden(content)
        )
    except GoldenError as error:
        raise GoldenError(f"{bundle.directory}: {error}") from error


def check_self(
    golden: Golden | TensorGolden,
    manifest: Manifest,
    precision: Precision,
    temperature: float,
    run: Callable[[dict[str, Array]], dict[str, Array]],
) -> None:
    """Check that a graph reproduces its golden outputs on this machine.

    Args:
        temperature: of the graph's logits, where it gives any.
        run: maps graph inputs to graph outputs.

    Raises:
        GoldenError: it does not; the message gives the figure.
    """
    if isinstance(golden, Golden):
        check_golden(golden, precision, lambda feeds: run(feeds)["logits"], temperature)
    else:
        check_tensor_golden(golden, precision, manifest.outputs, run)
