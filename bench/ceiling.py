"""The ceiling: what bare ONNX Runtime does with a graph on this machine, with nothing around it.

As many callers as processors, each a process with one session on one thread, run the same batch over and
over. The best batch size of 1, 8 and 32 counts.
"""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.predictor import create_predictor
from bundle.repository import read_bundle
from bundle.session import Provider

BATCHES = (1, 8, 32)
# A caller that does not start by then breaks the measurement off.
_START_S = 60
Feeds = dict[str, NDArray[Any]]


def measure_ceiling(bundle: Path, row: Feeds, seconds: float, callers: int = 2) -> dict[int, float]:
    """Return batch size -> rows a second of all callers together.

    Args:
        bundle: `models/<name>/<version>`; its int8 graph is run.
        row: graph inputs of one row, with the batch dimension.
        seconds: for each batch size.
    """
    return {batch: _run_callers(bundle, row, batch, seconds, callers) for batch in BATCHES}


def _run_callers(bundle: Path, row: Feeds, batch: int, seconds: float, callers: int) -> float:
    spawn = multiprocessing.get_context("spawn")
    feeds = {name: np.repeat(array, batch, axis=0) for name, array in row.items()}
    with spawn.Manager() as manager, ProcessPoolExecutor(callers, spawn) as pool:
        barrier = manager.Barrier(callers, timeout=_START_S)
        calls = [pool.submit(_call, bundle, feeds, seconds, barrier) for _ in range(callers)]
        return sum(call.result() for call in calls) * batch


def _call(bundle: Path, feeds: Feeds, seconds: float, barrier: Any, provider: Provider = "cpu") -> float:
    """Return the runs a second of one caller."""
    predictor = create_predictor(read_bundle(bundle), "int8", provider)
    for _ in range(5):
        predictor.run_feeds(feeds)
    barrier.wait()
    runs, began_s = 0, time.perf_counter()
    while time.perf_counter() < began_s + seconds:
        predictor.run_feeds(feeds)
        runs += 1
    return runs / (time.perf_counter() - began_s)
