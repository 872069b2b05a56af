"""MLServer: a process with FastAPI for the Open Inference Protocol, and a pool of inference processes.

The model is a custom runtime (runtime.py) with MLServer's adaptive batching on: at most 8, and 1 ms of
waiting (model-settings.json). With one process the pool is off and the model runs in the server's own, which
is faster than a pool of one. Its debug mode (and with it the access log), metrics and gzip, on by default,
are off (settings.json). MLServer offers JSON alone over HTTP. Its gRPC cannot be switched off and has the
next port.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--processes", type=int, required=True)
    arguments = parser.parse_args()
    mlserver = Path(sys.executable).with_name("mlserver")
    with tempfile.TemporaryDirectory(prefix="mlserver-") as folder:
        process = subprocess.Popen(  # noqa: S603
            [mlserver, "start", str(Path(__file__).parent)],
            cwd=folder,  # where it makes folders for environments and metrics
            env={
                **os.environ,
                "MLSERVER_MODEL_URI": arguments.model,
                "MLSERVER_HTTP_PORT": str(arguments.port),
                "MLSERVER_GRPC_PORT": str(arguments.port + 1),
                "MLSERVER_PARALLEL_WORKERS": str(arguments.processes if arguments.processes > 1 else 0),
            },
        )
        # It goes to the whole group: MLServer leaves, and this process waits for that to remove the folder.
        signal.signal(signal.SIGTERM, lambda *_: None)
        process.wait()
