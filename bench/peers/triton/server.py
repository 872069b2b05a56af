"""Triton: NVIDIA's C++ server, in the build that PyTriton brings along.

Its dynamic batching is on: at most 8, no delay. That build has no ONNX backend, so the model runs in ONNX
Runtime in Triton's own Python backend (model.py), a process for each instance; a function bound with PyTriton
takes one hop more and was measured at less than half of it. gRPC and the metrics are off.
"""

import argparse
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
from pathlib import Path

from pytriton.triton import Triton, TritonConfig

CONFIG = """\
name: "digits"
backend: "python"
max_batch_size: 8
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
instance_group [ {{ kind: KIND_CPU, count: {processes} }} ]
input [ {{ name: "pixels", data_type: TYPE_UINT8, dims: [ 28, 28 ] }} ]
output [ {{ name: "probabilities", data_type: TYPE_FP32, dims: [ 10 ] }} ]
"""

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--processes", type=int, required=True)
    arguments = parser.parse_args()
    # Triton is stopped when the `with` ends, but SIGTERM alone would not end it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    os.environ["MODEL"] = arguments.model
    # The model's processes load libpython: it must be this interpreter's, not whichever the system has.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    with tempfile.TemporaryDirectory(prefix="triton-") as folder:
        repository = Path(folder) / "models"
        version = repository / "digits" / "1"
        version.mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("model.py"), version)
        version.with_name("config.pbtxt").write_text(CONFIG.format(processes=arguments.processes))
        config = TritonConfig(
            model_repository=repository,
            http_address="127.0.0.1",
            http_port=arguments.port,
            allow_grpc=False,
            allow_metrics=False,
        )
        with Triton(config=config, workspace=Path(folder) / "workspace") as triton:
            triton.serve()
