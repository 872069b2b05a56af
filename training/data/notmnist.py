"""notMNIST: 10,000 letters A-J in many fonts, in the form of MNIST: what a model of digits should find new.

Nothing is trained on it. Where it lies in the data directory it is measured with, and otherwise not.
"""

from __future__ import annotations

from pathlib import Path

from bundle.datatypes import Array
from training.data.files import missing_files
from training.data.mnist import read_idx

NAME = "notMNIST"
FOLDER = "notmnist"
IMAGES = "t10k-images-idx3-ubyte.gz"
CHECKSUMS = {IMAGES: "70ae9e06201f2827e5b0a3781a3169d735dd2efc69996b9eeaee7f10ed4044d7"}


def find_notmnist(data_dir: Path) -> dict[str, list[Array]]:
    """Return its name -> (28, 28) uint8 images; nothing where the published file is not there.

    Raises:
        DataError: the file cannot be read.
    """
    folder = data_dir / FOLDER
    if missing_files(folder, CHECKSUMS):
        return {}
    return {NAME: list(read_idx(folder / IMAGES))}
