import ast
import json
import re
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.peers import PEERS, environment
from bench.peers.environment import PeerError, prepare, version
from bench.peers.peer import Peer

PROBABILITIES = [0.01, 0.02, 0.01, 0.9, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01]
LABEL = 3
INFERENCE = {"name": "probabilities", "shape": [1, 10], "datatype": "FP32"}
PLAIN_ANSWER = json.dumps({"probabilities": PROBABILITIES}).encode()
# What each rival answers, as it was seen to.
ANSWERS = {
    ("fastapi", "json"): PLAIN_ANSWER,
    ("mosec", "json"): PLAIN_ANSWER,
    ("mosec", "binary"): PLAIN_ANSWER,
    ("litserve", "json"): PLAIN_ANSWER,
    ("bentoml", "json"): json.dumps([PROBABILITIES]).encode(),
    ("mlserver", "json"): json.dumps({"outputs": [{**INFERENCE, "data": PROBABILITIES}]}).encode(),
    ("triton", "json"): json.dumps({"outputs": [{**INFERENCE, "data": PROBABILITIES}]}).encode(),
    ("triton", "binary"): json.dumps(
        {"outputs": [{**INFERENCE, "parameters": {"binary_data_size": 40}}]}
    ).encode()
    + struct.pack("<10f", *PROBABILITIES),
    ("torchserve", "json"): PLAIN_ANSWER,
    ("torchserve", "binary"): PLAIN_ANSWER,
}
WIRES = [(peer, kind) for peer in PEERS for kind in peer.requests]

each_peer = pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
each_wire = pytest.mark.parametrize(("peer", "kind"), WIRES, ids=lambda value: getattr(value, "name", value))


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)


def with_requirements(peer: Peer, folder: Path, text: str) -> Peer:
    folder.mkdir(exist_ok=True)
    (folder / "requirements.txt").write_text(text)
    return replace(peer, folder=folder)


def decode(body: bytes, kind: str) -> NDArray[np.uint8]:
    """Read the pixels back from a request's body, whichever form it has."""
    if kind == "binary":
        return np.frombuffer(body, np.uint8).reshape(28, 28)
    request = json.loads(body)
    if "pixels" in request:
        return np.array(request["pixels"], np.uint8)
    (tensor,) = request["inputs"]
    assert tensor["name"] == "pixels"
    assert tensor["datatype"] == "UINT8"
    return np.array(tensor["data"], np.uint8).reshape(tensor["shape"])[0]


def test_the_rivals_stand_in_the_order_of_the_report() -> None:
    assert [peer.name for peer in PEERS] == [
        "fastapi", "mosec", "litserve", "bentoml", "mlserver", "triton", "torchserve",
    ]  # fmt: skip


def test_every_folder_belongs_to_a_rival() -> None:
    folders = {path.parent for path in Path(environment.__file__).parent.rglob("requirements.txt")}
    assert folders == {peer.folder for peer in PEERS}


@each_peer
def test_a_rival_runs_alone(peer: Peer) -> None:
    for path in peer.folder.glob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree)
        modules = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add((node.module or ".").split(".")[0])
        assert not modules & {"bench", "bundle", "service", "training", "tests"}
    assert (peer.folder / "server.py").is_file()


@each_peer
def test_a_rival_binds_to_this_machine_alone(peer: Peer) -> None:
    texts = [path.read_text() for path in peer.folder.iterdir() if path.is_file()]
    assert any("127.0.0.1" in text for text in texts)
    assert not any("0.0.0.0" in text for text in texts)


@each_peer
def test_a_rivals_sessions_have_one_thread_that_does_not_spin(peer: Peer) -> None:
    text = "".join(path.read_text() for path in peer.folder.glob("*.py"))
    assert "intra_op_num_threads = 1" in text
    assert '"session.intra_op.allow_spinning", "0"' in text
    assert "ORT_ENABLE_ALL" in text


@each_peer
def test_every_requirement_is_pinned_once(peer: Peer) -> None:
    lines = (peer.folder / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line) for line in pins)
    names = [re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in pins]
    assert len(names) == len(set(names))
    assert {peer.package, "onnxruntime", "numpy"} <= set(names)
    # Any other release of torch brings gigabytes of CUDA libraries along.
    assert {line for line in pins if line.startswith("torch==")} <= {"torch==2.13.0"}


@each_peer
def test_a_command_names_all_that_a_rival_needs(peer: Peer) -> None:
    command = peer.command(Path("python"), Path("model.onnx"), 8123, 2)
    model = Path("model.onnx").absolute()
    assert command[:2] == ["python", str(peer.folder / "server.py")]
    assert command[2:] == [f"--model={model}", "--port=8123", "--processes=2"]
    server = (peer.folder / "server.py").read_text()
    assert all(f'"--{name}"' in server for name in ("model", "port", "processes"))
    assert peer.ready_path.startswith("/")
    assert peer.processes == (1, 2)


@each_wire
def test_a_request_holds_the_image(peer: Peer, kind: str, pixels: NDArray[np.uint8]) -> None:
    wire = peer.requests[kind]
    np.testing.assert_array_equal(decode(wire.encode(pixels), kind), pixels)
    np.testing.assert_array_equal(decode(wire.encode(np.asfortranarray(pixels)), kind), pixels)
    assert wire.path.startswith("/")
    assert wire.content_type == {"json": "application/json", "binary": "application/octet-stream"}[kind]


@each_wire
def test_an_answer_gives_the_label(peer: Peer, kind: str) -> None:
    assert peer.requests[kind].label(ANSWERS[peer.name, kind]) == LABEL


@each_wire
def test_an_answer_without_ten_probabilities_is_refused(peer: Peer, kind: str) -> None:
    with pytest.raises((ValueError, KeyError, IndexError, TypeError)):
        peer.requests[kind].label(b'{"probabilities": [0.5]}' if kind == "json" else b"{}")


def test_what_cannot_be_installed_is_told_in_one_line(tmp_path: Path) -> None:
    peer = with_requirements(PEERS[0], tmp_path / "peer", "./there-is-no-such-package\n")
    with pytest.raises(PeerError) as caught:
        prepare(peer, tmp_path / "environments")
    assert re.fullmatch(
        r"FastAPI \+ pydantic cannot be installed: .*there-is-no-such-package.*", str(caught.value)
    )
    assert not list(tmp_path.rglob("requirements.sha256"))


def test_an_environment_is_made_once_for_the_same_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], failure: str, limit_s: float) -> str:
        commands.append(command)
        python = tmp_path / PEERS[0].name / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()
        return ""

    monkeypatch.setattr(environment, "_run", run)
    peer = with_requirements(PEERS[0], tmp_path / "peer", "numpy==1\n")
    assert prepare(peer, tmp_path) == tmp_path / "fastapi" / "bin" / "python"
    assert len(commands) == 2  # the environment, and what goes into it
    prepare(peer, tmp_path)
    assert len(commands) == 2
    prepare(with_requirements(peer, tmp_path / "peer", "numpy==2\n"), tmp_path)
    assert len(commands) == 4


def test_an_install_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"^slow: it took more than 0 s$"):
        environment._run([sys.executable, "-c", "import time; time.sleep(60)"], "slow", 0.3)


def test_a_silent_failure_tells_its_exit_code() -> None:
    with pytest.raises(PeerError, match=r"^silent: exit code 3$"):
        environment._run([sys.executable, "-c", "raise SystemExit(3)"], "silent", 60)


def test_the_version_is_that_of_the_environment() -> None:
    assert version(Path(sys.executable), "numpy") == np.__version__
    with pytest.raises(PeerError, match=r"^no-such-package has no version: .*PackageNotFoundError"):
        version(Path(sys.executable), "no-such-package")
