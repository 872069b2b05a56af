"""MNIST: 70,000 handwritten digits of 28 x 28 grey pixels (Y. LeCun, C. Cortes, C. Burges), CC BY-SA 3.0."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.files import digest_of, ensure_files
from training.data.splits import Examples, Splits
from training.errors import DataError

FOLDER = "mnist"
URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
LICENCE = "CC BY-SA 3.0"
ATTRIBUTION = "MNIST, by Yann LeCun, Corinna Cortes and Christopher J. C. Burges"
LABELS = tuple("0123456789")
CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
# The 60,000 official training items, in an order that never changes, are cut into four.
SPLIT_SEED = 20_240_601
SPLIT_SIZES = {"train": 50_000, "validation": 2_000, "temperature": 3_000, "conformal": 5_000}


def data_sha256() -> str:
    """Return the digest of the published files."""
    return digest_of(CHECKSUMS)


def load_mnist(data_dir: Path) -> Splits:
    """Fetch if needed, verify, and split MNIST.

    Returns:
        Splits whose items are (28, 28) uint8 pixels, 0 for the background and 255 for ink. The test
        split is the official one.

    Raises:
        DataError: the files are not there and cannot be fetched, or are not the published ones.
    """
    folder = data_dir / FOLDER
    ensure_files(folder, CHECKSUMS, URL)
    pixels = read_idx(folder / "train-images-idx3-ubyte.gz")
    labels = read_idx(folder / "train-labels-idx1-ubyte.gz").astype(np.int64)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    parts: dict[str, Examples] = {}
    start = 0
    for name, size in SPLIT_SIZES.items():
        ids = np.sort(order[start : start + size])
        parts[name] = Examples(ids=ids, items=list(pixels[ids]), labels=labels[ids])
        start += size
    test_pixels = read_idx(folder / "t10k-images-idx3-ubyte.gz")
    test_labels = read_idx(folder / "t10k-labels-idx1-ubyte.gz").astype(np.int64)
    test_ids = len(labels) + np.arange(len(test_labels), dtype=np.int64)
    return Splits(**parts, test=Examples(ids=test_ids, items=list(test_pixels), labels=test_labels))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes.

    Returns:
        uint8 of the shape that the file's header gives, e.g. (60000, 28, 28).

    Raises:
        DataError: the file is no such file.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        zero, datatype, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        if (zero, datatype) != (0, 8):
            raise DataError(f"{path} is not an IDX file of unsigned bytes")
        return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise DataError(f"{path} is not a readable IDX file: {error}") from error
