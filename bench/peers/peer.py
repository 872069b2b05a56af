"""What is known of a rival server: where it lies, how it starts, and what it reads and answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Wire:
    """One way to ask a rival about one image, always by POST.

    Attributes:
        path: of the request, from the slash on.
        content_type: of the request's body.
        encode: (28, 28) uint8 pixels -> the request's body.
        label: an answer's body -> the index of the most probable label.
        headers: that the request carries besides Content-Type and Content-Length.
    """

    path: str
    content_type: str
    encode: Callable[[NDArray[np.uint8]], bytes]
    label: Callable[[bytes], int]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """One rival.

    Attributes:
        name: also the name of its virtual environment.
        title: as its makers write it.
        package: the distribution whose version is reported.
        folder: holds its requirements.txt and server.py.
        requests: "json" and, where it is offered, "binary" -> what is sent.
        ready_path: answers GET with status 200 once the server is up.
        processes: how many processes that run the model it is measured with.
        extra_ports: how many ports just above its own it listens on too.
        environment: variables that it is started with besides those of this process.
    """

    name: str
    title: str
    package: str
    folder: Path
    requests: Mapping[str, Wire]
    ready_path: str
    processes: tuple[int, ...] = (1, 2)
    extra_ports: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, python: Path, model: Path, port: int, processes: int) -> list[str]:
        """Return the command line that serves a model on 127.0.0.1 until SIGTERM to its process group.

        Args:
            python: of the rival's own environment.
            model: an ONNX file with the input `pixels`, uint8 [batch, 28, 28], and the output `logits`.
            processes: that run the model; what else the rival needs comes on top.
        """
        return [
            str(python),
            str(self.folder / "server.py"),
            f"--model={model.absolute()}",
            f"--port={port}",
            f"--processes={processes}",
        ]
