import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import service.__main__ as command
from tests import tiny
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("restore_logging")


def broken_bundle(folder: Path) -> Path:
    (tiny.make_image_bundle(folder) / "model.int8.onnx").write_bytes(b"changed")
    return folder


def malformed_manifest(folder: Path) -> Path:
    (tiny.make_image_bundle(folder) / "manifest.json").write_text('{"name": 1,\n "version": {}}')
    return folder


def no_manifest(folder: Path) -> Path:
    (folder / "model" / "1").mkdir(parents=True)
    return folder


def wrong_answers(folder: Path) -> Path:
    tiny.make_image_bundle(folder, int8_error=5, fp32_error=5)
    return folder


def assert_one_error_line(stderr: str, words: str) -> None:
    """Beside log lines, which begin with the date, there is the one line."""
    lines = [line for line in stderr.splitlines() if not re.match(r"\d{4}-\d\d-\d\d ", line)]
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    assert words in lines[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "nowhere", "nowhere is not a directory"),
        (lambda folder: folder, "holds no bundle"),
        (broken_bundle, "model.int8.onnx: it was changed"),
        (malformed_manifest, "manifest.json"),
        (no_manifest, "manifest.json"),
        (wrong_answers, "tiny-image/1"),
    ],
)
def test_a_repository_that_cannot_be_served_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], Path], words: str
) -> None:
    assert command.main(["--port", "0", "--models", str(make(tmp_path))]) == 1
    assert_one_error_line(capsys.readouterr().err, words)


def test_a_required_provider_that_is_missing_is_one_line_and_exit_code_1(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--port", "0", "--models", str(repository), "--provider", "require-openvino"]
    assert command.main(arguments) == 1
    assert_one_error_line(capsys.readouterr().err, "'openvino' is required")


def test_a_taken_port_is_one_line_and_exit_code_1(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert command.main(["--port", port, "--models", str(repository)]) == 1
    assert_one_error_line(
        capsys.readouterr().err, f"cannot listen on 127.0.0.1:{port}: Address already in use"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "x"], "setting port: Input should be a valid integer"),
        (["--port", "99999"], "setting port: Input should be less than or equal to 65535"),
        (["--provider", "abacus"], "setting provider"),
        (["--body-timeout-s", "0"], "setting body_timeout_s"),
        (["--prot", "80"], "unrecognized arguments: --prot 80"),
        (["models"], "unrecognized arguments: models"),
        (["--port"], "argument --port"),
    ],
)
def test_a_bad_flag_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert command.main(arguments) == 2
    assert_one_error_line(capsys.readouterr().err, words)


def test_a_bad_variable_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OCTET_WORKERS", "none")
    assert command.main([]) == 2
    assert_one_error_line(capsys.readouterr().err, "setting workers")


def test_one_worker_serves_in_this_process_and_more_are_supervised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[str, int]] = []
    for name in ("run_worker", "supervise"):
        monkeypatch.setattr(
            command, name, lambda settings, _, name=name: called.append((name, settings.workers))
        )
    monkeypatch.setattr(sys, "argv", ["service", "--port", "0"])
    assert command.main() == 0
    assert command.main(["--port", "0", "--workers", "3"]) == 0
    assert called == [("run_worker", 1), ("supervise", 3)]


def test_a_failed_start_of_the_real_process_writes_one_line_and_no_trace(tmp_path: Path) -> None:
    for workers in ("1", "2"):
        failed = subprocess.run(
            [sys.executable, "-m", "service", "--port", "0", "--workers", workers, "--models", str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert failed.returncode == 1
        assert failed.stdout == ""
        assert_one_error_line(failed.stderr, "holds no bundle")
