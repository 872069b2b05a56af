"""How the commands are run in tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from octet.cli import app


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that a failure is."""
        (line,) = self.err.splitlines()
        assert line.startswith("error: ")
        assert self.code == 1
        return line


@pytest.fixture
def octet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ran]:
    """Run `octet` with arguments, in an empty folder and without settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("OCTET_API_KEY", "OCTET_DATA_DIR", "OCTET_MODELS"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Ran:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run
