"""The shape of the code: who may import whom, and how large and how well described its parts are."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("bundle", "octet", "service", "training")
# What a compiler wrote is nobody's to shape.
MODULES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "_pb2" not in path.name
)
IDS = [str(path.relative_to(ROOT)) for path in MODULES]
MAX_MODULE_LINES = 350
MAX_FUNCTION_LINES = 60
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
TRAINING_ONLY = ("torch", "onnx", "lightning", "onnxscript", "sklearn", "scipy", "training")

each_module = pytest.mark.parametrize("path", MODULES, ids=IDS)
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def test_the_modules_are_found() -> None:
    assert len(MODULES) >= 40
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)


def test_the_import_contracts_are_kept() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " kept, 0 broken" in done.stdout


@pytest.mark.parametrize("module", ["service.app", "service.__main__", "bundle.predictor"])
def test_what_serves_loads_no_training_framework(module: str) -> None:
    script = f"import sys, {module}; print(*(m for m in {TRAINING_ONLY!r} if m in sys.modules), 'loaded')"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "loaded\n"


HTTP = {"fastapi", "starlette", "uvicorn", "httptools"}
KNOW_HTTP = ("service/api/", "service/app.py", "service/server.py")


@each_module
def test_only_the_http_side_imports_what_speaks_http(path: Path) -> None:
    """The contract names those that must not, so a new module could be forgotten there."""
    relative = path.relative_to(ROOT).as_posix()
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in imports_of(node)
    }
    assert relative.startswith(KNOW_HTTP) or not HTTP & imported


def imports_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def definitions(tree: ast.AST) -> Iterator[Definition]:
    """Every class and function, however deep."""
    return (node for node in ast.walk(tree) if isinstance(node, Definition))


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """The public classes and functions of a module, and the public methods of those classes."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}{node.name}.")


@each_module
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has none"
    assert [name for name, node in public(tree.body) if not ast.get_docstring(node)] == []


@each_module
def test_modules_and_functions_are_of_a_size_to_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_MODULE_LINES
    long = [
        node.name
        for node in definitions(ast.parse(text))
        if not isinstance(node, ast.ClassDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert long == []


@each_module
def test_names_of_modules_say_what_is_inside(path: Path) -> None:
    assert not SAYS_NOTHING & set(path.relative_to(ROOT).with_suffix("").parts)
