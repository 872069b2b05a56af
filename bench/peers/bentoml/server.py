"""BentoML: uvicorn processes under a supervisor, each with its own model and its own queue.

Its adaptive batching is on, with at most 8. The access log and the metrics, on by default, are off; uvloop
and httptools are installed, which its uvicorn then uses. BentoML offers JSON and files, but no raw bodies.
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
    parser.add_argument("--port", required=True)
    parser.add_argument("--processes", required=True)
    arguments = parser.parse_args()
    serve = [sys.executable, "-m", "bentoml", "serve", "service:Digits", "--host=127.0.0.1"]
    with tempfile.TemporaryDirectory(prefix="bentoml-") as home:
        process = subprocess.Popen(  # noqa: S603
            [*serve, f"--port={arguments.port}", f"--working-dir={Path(__file__).parent}"],
            cwd=home,
            env={
                **os.environ,
                "MODEL": arguments.model,
                "PROCESSES": arguments.processes,
                "BENTOML_HOME": home,
                "BENTOML_DO_NOT_TRACK": "true",
            },
        )
        # It goes to the whole group: BentoML leaves, and this process waits for that to remove the folder.
        signal.signal(signal.SIGTERM, lambda *_: None)
        process.wait()
