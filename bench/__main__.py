"""The command of the benchmark: `python -m bench [--quick] …`."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from bench.figures import FIGURES
from bench.peers import PEERS
from bench.report import figure_table, write_reports
from bench.suite import QUICK, Plan, run


class Options(BaseSettings):
    """Measure the service beside bare ONNX Runtime and beside other servers."""

    model_config = SettingsConfigDict(
        use_attribute_docstrings=True,
        cli_prog_name="python -m bench",
        cli_kebab_case=True,
        cli_implicit_flags=True,
    )

    quick: bool = False
    """A minute: bare ONNX Runtime, this service and nginx; fails where a ratio is far below its must."""
    seconds: float = Field(default=3.0, gt=0)
    """Length of each load."""
    rounds: int = Field(default=5, ge=1)
    """Rounds of the figures that are ratios of one another."""
    peers: str = ",".join(peer.name for peer in PEERS)
    """The other servers, separated by commas; each is installed in an environment of its own."""
    soak_requests: int = Field(default=1_000_000, ge=0)
    """Requests of mixed shapes, for the memory; 0 leaves them out."""
    out: Path = Path("bench/results")
    """Folder of results.json, results.md and latency.png."""
    environments: Path = Path("bench/environments")
    """Folder of the other servers' virtual environments."""


# A shared machine in a bad moment reaches these; a service that has become slow does not.
_QUICK_SHARE = 0.4


def main(arguments: list[str] | None = None) -> int:
    """Measure, report, and return the exit code."""
    options = CliApp.run(Options, cli_args=sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level="INFO", format="%(message)s")
    if options.quick:
        plan = QUICK
    else:
        peers = tuple(filter(None, options.peers.split(",")))
        plan = replace(
            Plan(),
            seconds=options.seconds,
            rounds=options.rounds,
            peers=peers,
            soak_requests=options.soak_requests,
        )
    results = run(plan, options.environments)
    write_reports(results, options.out)
    print(figure_table(results))
    if not options.quick:
        return 0
    slow = [
        figure.title
        for figure in FIGURES[:4]
        if (measured := figure.measure(results)) is not None and measured < _QUICK_SHARE * figure.must
    ]
    for title in slow:
        print(f"far below what it must be: {title}", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
