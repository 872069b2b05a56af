"""A rival's virtual environment: made once, and again when its requirements change."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from bench.peers.peer import Peer

_INSTALL_S = 15 * 60
_ASK_S = 60


class PeerError(Exception):
    """A rival cannot be installed or asked; the message is one line and says why."""


def prepare(peer: Peer, folder: Path) -> Path:
    """Make a rival's virtual environment below a folder, if it is not there already.

    Returns:
        The environment's Python.

    Raises:
        PeerError: the environment cannot be made, or its requirements cannot be installed.
    """
    home = folder.absolute() / peer.name
    python = home / "bin" / "python"
    requirements = peer.folder / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    stamp = home / "requirements.sha256"
    if python.is_file() and stamp.is_file() and stamp.read_text() == digest:
        return python
    _run([sys.executable, "-m", "venv", "--clear", str(home)], f"{peer.title} has no environment", _ASK_S)
    # Twice quiet: what pip warns of must not hide its error in the last line.
    install = [str(python), "-m", "pip", "install", "-qq", "--no-input", "--requirement", str(requirements)]
    _run(install, f"{peer.title} cannot be installed", _INSTALL_S)
    stamp.write_text(digest)
    return python


def version(python: Path, package: str) -> str:
    """Return the version of a distribution in the environment of a Python.

    Raises:
        PeerError: it is not installed there.
    """
    ask = f"from importlib.metadata import version; print(version({package!r}))"
    return _run([str(python), "-c", ask], f"{package} has no version", _ASK_S).strip()


def _run(command: list[str], failure: str, limit_s: float) -> str:
    """Run a command to its end and return its output; nothing of it outlives the limit.

    Raises:
        PeerError: it takes too long, or fails; with the last line that it wrote.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise PeerError(f"{failure}: it took more than {limit_s:.0f} s") from None
    finally:
        if process.poll() is None:
            # Its own group, because pip builds in processes of its own.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        raise PeerError(f"{failure}: {lines[-1] if lines else f'exit code {process.returncode}'}")
    return output
