"""The generated modules are those of the .proto, and its numbers those of the public protocol."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from service.rpc import open_inference_pb2 as pb
from tests.conftest import ROOT

PROTO = "service/rpc/open_inference.proto"


def test_the_generated_modules_are_those_of_the_proto(tmp_path: Path) -> None:
    """Otherwise run `make proto`."""
    # The service needs no stubs, which are for callers.
    (tmp_path / "tests").mkdir()
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi")]
    outputs.append(f"--grpc_python_out={tmp_path / 'tests'}")
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *outputs, PROTO], cwd=ROOT, check=True
    )
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) == 3
    for path in made:
        assert path.read_text() == (ROOT / path.relative_to(tmp_path)).read_text(), path.name


def numbers(name: str) -> dict[str, int]:
    return {field.name: field.number for field in pb.DESCRIPTOR.message_types_by_name[name].fields}


def test_the_numbers_are_those_that_clients_send() -> None:
    assert pb.DESCRIPTOR.package == "inference"
    assert list(numbers("ModelInferRequest").values()) == [1, 2, 3, 4, 5, 6, 7]
    assert numbers("ModelInferRequest")["raw_input_contents"] == 7
    assert numbers("ModelInferResponse")["raw_output_contents"] == 6
    assert numbers("ModelStreamInferResponse") == {"error_message": 1, "infer_response": 2}
    assert numbers("InferParameter") == {
        "bool_param": 1, "int64_param": 2, "string_param": 3, "double_param": 4, "uint64_param": 5,
    }  # fmt: skip
    config = numbers("ModelConfig")
    assert (config["max_batch_size"], config["dynamic_batching"], config["backend"]) == (4, 11, 17)
    assert (numbers("ModelInput")["dims"], numbers("ModelOutput")["dims"]) == (4, 3)
    assert numbers("RepositoryModelLoadRequest") == {
        "repository_name": 1, "model_name": 2, "parameters": 3,
    }  # fmt: skip
