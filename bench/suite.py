"""What is measured, in which order.

The figures that are ratios of one another are measured in rounds, one load after the other while all these
servers run, so that whatever slows the machine down slows them all; the medians over the rounds count.
"""

from __future__ import annotations

import logging
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.ceiling import Feeds, measure_ceiling
from bench.contenders import OURS, Contender, bundle_of, check_ours, ours, ours_behind_nginx, rival
from bench.inputs import digits, sounds
from bench.load import closed_loop, open_loop
from bench.octet import copy_models, counted
from bench.peers import PEERS
from bench.results import Results, Sample
from bench.server import BenchError
from bench.soak import soak

logger = logging.getLogger(__name__)

# After one load has hung up and before the next begins: servers notice the end of their connections.
_PAUSE_S = 0.3

# Among the rivals, those that a figure of the table is a ratio to.
IN_ROUNDS = ("fastapi", "mosec")


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        seconds: of each load.
        rounds: of the figures that are ratios.
        connections: of the closed loops of the sweep; empty to leave it out.
        peers: names of the rivals.
        soak_requests: of mixed shapes, for the memory; 0 to leave it out.
        copies: of a model, for the figure of many models; 0 to leave it out.
    """

    seconds: float = 3.0
    rounds: int = 5
    connections: tuple[int, ...] = (1, 8, 32, 128)
    peers: tuple[str, ...] = tuple(peer.name for peer in PEERS)
    soak_requests: int = 1_000_000
    copies: int = 98


QUICK = Plan(seconds=1.5, rounds=2, connections=(), peers=(), soak_requests=0, copies=0)


def run(plan: Plan, environments: Path) -> Results:
    """Measure everything that a plan asks for.

    Args:
        environments: folder of the rivals' virtual environments.
    """
    results = Results(machine={"processor": _processor(), "python": platform.python_version()})
    with tempfile.TemporaryDirectory(prefix="octet-bench-") as name:
        folder = Path(name)
        _measure_ratios(plan, results, folder, environments)
        if plan.connections:
            _measure_ours_alone(plan, results, folder)
        for peer in plan.peers:
            for processes in next(each for each in PEERS if each.name == peer).processes:
                with _excused(results, f"{peer}, {processes} processes"):
                    _measure_rival(plan, results, peer, processes, folder, environments)
        if plan.copies:
            _measure_many_models(plan, results, folder)
        if plan.soak_requests:
            soak(results, plan.soak_requests, folder)
    return results


def _measure_ratios(plan: Plan, results: Results, folder: Path, environments: Path) -> None:
    """Run the ceiling, this service, nginx and the rivals of the table in turn."""
    with ExitStack() as stack:
        direct = stack.enter_context(ours(folder))
        check_ours(direct.server)
        contenders = [direct]
        with _excused(results, "nginx"):
            contenders.append(stack.enter_context(ours_behind_nginx(direct, folder)))
        for peer in PEERS:
            if peer.name in IN_ROUNDS and peer.name in plan.peers:
                with _excused(results, peer.name):
                    contender, version = stack.enter_context(rival(peer, 2, folder, environments))
                    results.versions[peer.name] = version
                    contenders.append(contender)
        for _ in range(plan.rounds):
            results.ceilings.append(_ceilings(plan))
            for contender in contenders:
                for model, wire in contender.requests:
                    _load(plan, results, contender, model, wire, 32)
            _load(plan, results, direct, "cnn", "binary", 128)
        _note_spread(results, direct)


def _ceilings(plan: Plan) -> dict[str, dict[int, float]]:
    seconds = plan.seconds / 3
    samples = sounds(1)
    cnn: Feeds = {"pixels": digits(1)}
    lstm: Feeds = {"samples": samples, "lengths": np.array([samples.shape[1]], np.int64)}
    return {
        "cnn": measure_ceiling(bundle_of("mnist-cnn"), cnn, seconds),
        "lstm": measure_ceiling(bundle_of("spoken-digits-lstm"), lstm, seconds),
    }


def _measure_ours_alone(plan: Plan, results: Results, folder: Path) -> None:
    """Sweep the connections and the rates, and see how it starts, what it holds and how it refuses."""
    with ours(folder, workers=1) as single:
        results.starts_s["octet, 1 process"] = single.server.start_s
        results.memories["octet, 1 process, at start"] = single.server.memory()
        for model, wire in single.requests:
            _load(plan, results, single, model, wire, 32)
    with ours(folder) as direct:
        results.starts_s["octet, 2 processes"] = direct.server.start_s
        results.memories["octet, 2 processes, at start"] = direct.server.memory()
        for connections in plan.connections:
            for wire in ("binary", "json", "png"):
                _load(plan, results, direct, "cnn", wire, connections)
            _load(plan, results, direct, "lstm", "binary", connections)
        most = max(sample.per_s for sample in results.pick(server=OURS, model="cnn", wire="binary"))
        for share in (0.25, 0.5, 0.75, 0.9):
            rate = most * share
            load = open_loop(direct.server.port, direct.requests["cnn", "binary"], rate, plan.seconds)
            results.samples.append(Sample.of(load, OURS, 2, "binary", "cnn", due_per_s=rate))
    with ours(folder, "--max-queue-size", "8") as crowded:
        load = closed_loop(crowded.server.port, crowded.requests["cnn", "binary"], 128, plan.seconds)
        results.extras["answers 429 a second, 128 connections to a queue of 8"] = (
            load.statuses.get(429, 0) / load.seconds
        )
        results.extras["p50 of a 429, ms"] = float(np.median(load.refusals_s)) * 1e3
        results.extras["p99 of a 429, ms"] = float(np.quantile(load.refusals_s, 0.99)) * 1e3


def _measure_rival(
    plan: Plan, results: Results, name: str, processes: int, folder: Path, environments: Path
) -> None:
    (peer,) = (peer for peer in PEERS if peer.name == name)
    with rival(peer, processes, folder, environments) as (contender, version):
        key = f"{name}, {processes} processes"
        results.versions[name] = version
        results.starts_s[key] = contender.server.start_s
        results.memories[key] = contender.server.memory()
        for model, wire in contender.requests:
            for connections in plan.connections or (32,):
                _load(plan, results, contender, model, wire, connections)


def _measure_many_models(plan: Plan, results: Results, folder: Path) -> None:
    """Compare the latency with two models and with many, on one connection."""
    models = copy_models(folder / "models", plan.copies)
    with ours(folder, workers=1) as few, ours(folder, workers=1, models=models) as many:
        medians: dict[str, list[float]] = {"few": [], "many": []}
        for _ in range(plan.rounds):
            for key, contender in (("few", few), ("many", many)):
                load = closed_loop(
                    contender.server.port, contender.requests["cnn", "binary"], 1, plan.seconds
                )
                medians[key].append(load.latency_ms(0.5))
        results.memories[f"octet, 1 process, {plan.copies + 2} models"] = many.server.memory()
    results.extras["p50 with 2 models, ms"] = float(np.median(medians["few"]))
    results.extras[f"p50 with {plan.copies + 2} models, ms"] = float(np.median(medians["many"]))


def _load(
    plan: Plan, results: Results, contender: Contender, model: str, wire: str, connections: int
) -> None:
    requests: Sequence[bytes] = contender.requests[model, wire]
    time.sleep(_PAUSE_S)
    load = closed_loop(contender.server.port, requests, connections, plan.seconds)
    sample = Sample.of(load, contender.name, contender.processes, wire, model, connections)
    results.samples.append(sample)
    logger.info(
        "%-20s x%d %-4s %-6s c=%-3d %7.0f/s  p50 %6.2f  p99 %6.2f ms %s",
        *(contender.name, contender.processes, model, wire, connections),
        *(
            sample.per_s,
            sample.p50_ms,
            sample.p99_ms,
            "" if set(sample.statuses) == {200} else sample.statuses,
        ),
    )


def _note_spread(results: Results, direct: Contender) -> None:
    """Note how 32 connections that stay open are spread over the processes."""
    shares: list[float] = []

    def look() -> None:
        shares.extend(counted(direct.server.port, "octet_connections").values())

    time.sleep(_PAUSE_S)
    closed_loop(direct.server.port, direct.requests["cnn", "binary"], 32, 1.0, look=look)
    results.extras["fewest connections of a worker, of 32"] = min(shares)
    results.extras["most connections of a worker, of 32"] = max(shares)


@contextmanager
def _excused(results: Results, what: str) -> Iterator[None]:
    """Note what cannot be measured, and go on."""
    try:
        yield
    except (BenchError, OSError) as error:
        results.failures[what] = str(error)
        logger.warning("%s: %s", what, error)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} CPUs" if names else platform.machine()
