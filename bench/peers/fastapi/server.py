"""The baseline: the thirty lines that people write when they have no model server.

FastAPI with a pydantic body, the session in the lifespan as FastAPI's documentation shows it, `session.run`
in a `def` endpoint, which runs in the thread pool, and uvicorn with uvloop and httptools. There is no
batching. Uvicorn writes a line for each request unless told not to; here it is told not to.
"""

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel


class Image(BaseModel):
    """The request's body."""

    pixels: list[list[int]]


class Answer(BaseModel):
    """The answer's body."""

    probabilities: list[float]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model before the first request."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    app.state.session = ort.InferenceSession(os.environ["MODEL"], options, ["CPUExecutionProvider"])
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/health")
def health() -> str:
    """Answer once the model is loaded."""
    return "ok"


@app.post("/predict")
def predict(image: Image, request: Request) -> Answer:
    """Run the model on one image."""
    pixels = np.array([image.pixels], np.uint8)  # (1, 28, 28)
    (logits,) = request.app.state.session.run(["logits"], {"pixels": pixels})
    odds = np.exp(logits[0] - logits[0].max())
    return Answer(probabilities=(odds / odds.sum()).tolist())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--processes", type=int, required=True)
    arguments = parser.parse_args()
    os.environ["MODEL"] = arguments.model  # for the processes that uvicorn spawns
    uvicorn.run(
        "server:app", host="127.0.0.1", port=arguments.port, workers=arguments.processes, access_log=False
    )
