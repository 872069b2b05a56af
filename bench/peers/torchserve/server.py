"""TorchServe: a front of Java that batches, and worker processes of Python behind Unix sockets.

Its batching is on: at most 8, and 1 ms of waiting. The model and its handler (handler.py) are packed into an
archive first. Its access log and the metrics that it logs for each request, on by default, are off
(log4j2.xml). Management shares the port of inference; gRPC cannot be switched off and has the next two.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from ts.model_server import start

HERE = Path(__file__).parent
MODEL_CONFIG = """\
minWorkers: {processes}
maxWorkers: {processes}
batchSize: 8
maxBatchDelay: 1
"""
CONFIG = """\
inference_address=http://127.0.0.1:{port}
management_address=http://127.0.0.1:{port}
enable_metrics_api=false
grpc_inference_address=127.0.0.1
grpc_inference_port={grpc_port}
grpc_management_address=127.0.0.1
grpc_management_port={grpc_management_port}
load_models=digits.mar
job_queue_size=1000
async_logging=true
disable_system_metrics=true
"""


def archive(model: Path, processes: int, store: Path) -> None:
    """Pack the model, the handler and its configuration into digits.mar."""
    config = store / "model-config.yaml"
    config.write_text(MODEL_CONFIG.format(processes=processes))
    archiver = Path(sys.executable).with_name("torch-model-archiver")
    command = [archiver, "--model-name=digits", "--version=1", f"--serialized-file={model}"]
    command += [f"--handler={HERE / 'handler.py'}", f"--config-file={config}", f"--export-path={store}"]
    subprocess.run(command, check=True)  # noqa: S603


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--processes", type=int, required=True)
    arguments = parser.parse_args()
    port = arguments.port
    with tempfile.TemporaryDirectory(prefix="torchserve-") as folder:
        archive(arguments.model, arguments.processes, Path(folder))
        config = Path(folder) / "config.properties"
        config.write_text(CONFIG.format(port=port, grpc_port=port + 1, grpc_management_port=port + 2))
        # The launcher's pid file, the workers' sockets and the logs would lie where another run finds them.
        os.environ |= dict.fromkeys(("TMPDIR", "TEMP", "LOG_LOCATION", "METRICS_LOCATION"), folder)
        tempfile.tempdir = folder
        os.chdir(folder)
        # It goes to the whole group: Java leaves, and this process waits for that to remove the folder.
        signal.signal(signal.SIGTERM, lambda *_: None)
        # What the command `torchserve` does. In this process, because the command itself leaves before Java.
        sys.argv = ["torchserve", "--foreground", f"--model-store={folder}", f"--ts-config={config}"]
        sys.argv += [f"--log-config={HERE / 'log4j2.xml'}", "--disable-token-auth", "--no-config-snapshots"]
        start()
