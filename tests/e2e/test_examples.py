"""The examples of the README and of `examples/`, run against a live service with the committed models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, LiveServer

EXAMPLES = ROOT / "examples"


def run(*command: str) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_script_gets_the_right_answers(start_service: Callable[..., LiveServer]) -> None:
    server = start_service()
    lines = run(str(EXAMPLES / "calls.sh"), server.url).splitlines()
    answers = [json.loads(line) for line in lines if not line.startswith("#")]
    assert answers[0] == {"models": ["mnist-cnn", "spoken-digits-lstm"]}
    assert [answer["predictions"][0]["label"] for answer in answers[1:4]] == ["7", "3", "7"]
    assert answers[4]["results"][0]["label"] == "7"
    assert answers[5]["predictions"][0] == answers[1]["predictions"][0]
    assert len(answers[6]["predictions"]) == 3


def test_the_python_client_gets_the_right_answers(start_service: Callable[..., LiveServer]) -> None:
    lines = run(sys.executable, str(EXAMPLES / "client.py"), start_service().url).splitlines()
    assert lines[0] == "a PNG as it is: 7"
    assert lines[1].startswith("two instances as JSON: ['7', ")
    assert lines[2].startswith("a sound: 7, confidence 0.")


def test_the_image_examples_are_what_the_script_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from examples import make_inputs

    monkeypatch.setattr(make_inputs, "FOLDER", tmp_path)
    monkeypatch.setattr(make_inputs.subprocess, "run", lambda *_, **__: None)  # the voice needs espeak-ng
    make_inputs.main()
    assert (tmp_path / "seven.png").read_bytes() == (EXAMPLES / "seven.png").read_bytes()
