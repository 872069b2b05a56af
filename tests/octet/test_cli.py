"""The command itself: quick to start, and with exit codes that scripts can use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from octet.cli import app
from tests.conftest import ROOT

Octet = Callable[..., Any]
COMMANDS = {
    "serve",
    "models",
    "predict",
    "import",
    "verify",
    "publish",
    "train",
    "evaluate",
    "data",
    "review",
}
HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "scipy", "pydantic", "fastapi", "lightning", "sklearn")


def test_every_command_is_there() -> None:
    names = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    assert names | {group.name for group in app.registered_groups} == COMMANDS


def loaded_by(*arguments: str) -> set[str]:
    """Which of the heavy packages a command loads, in a process of its own."""
    script = (
        "import sys; from octet.cli import app; "
        f"app({list(arguments)!r}, standalone_mode=False); "
        f"print('loaded', *(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_loads_nothing_but_the_commands() -> None:
    assert loaded_by("--help") == set()


def test_listing_models_loads_no_runtime_and_no_training_framework() -> None:
    assert loaded_by("models") <= {"numpy", "pydantic"}


def test_an_unknown_command_and_an_unknown_option_are_misunderstandings(octet: Octet) -> None:
    assert octet("fly").code == 2
    assert octet("models", "--height", "3").code == 2
    assert octet("import", "x.onnx").code == 2  # it needs a name


@pytest.mark.parametrize("arguments", [["serve", "--help"], ["train", "--help"]])
def test_commands_with_parsers_of_their_own_get_all_arguments(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "octet", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert ("--port" if arguments[0] == "serve" else "mnist-cnn") in done.stdout


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("tqdm", ["import", "x.onnx", "--name", "x"]),
        ("torch", ["train", "mnist-cnn"]),
        ("tqdm", ["data", "list"]),
    ],
)
def test_a_command_whose_packages_are_not_installed_says_which_extra_brings_them(
    package: str, arguments: list[str]
) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = ['octet', *{arguments!r}]; "
        "from octet.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    expected = f"error: this command needs the package '{package}', which the extra 'training' installs\n"
    assert (done.returncode, done.stderr) == (1, expected)
