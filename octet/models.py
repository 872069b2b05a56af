"""`octet models`, `verify` and `publish`: what a model repository holds, whether it is whole, and more."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octet.client import ask
from octet.errors import CommandError
from octet.output import (
    FAILED,
    ApiKey,
    AsJson,
    Models,
    Url,
    failing_in_one_line,
    print_error,
    print_json,
    print_table,
    print_warning,
)

if TYPE_CHECKING:
    from bundle.manifest import Manifest
    from bundle.predictor import Predictor

COLUMNS = ("name", "version", "task", "precisions", "size_bytes", "accuracy", "aliases", "state")
SERVED = ("name", "version", "task", "precision", "provider", "accuracy", "aliases", "state")


def models(
    models: Models = Path("models"), url: Url = None, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """List the models of a repository, or those that a running server serves."""
    with failing_in_one_line():
        rows = list(_describe_served(url.rstrip("/"), api_key) if url else _describe_repository(models))
    if as_json:
        print_json(rows)
    else:
        print_table(SERVED if url else COLUMNS, rows)
    if any(row["state"] not in ("ok", "ready") for row in rows):
        raise typer.Exit(FAILED)


def verify(
    models: Models = Path("models"),
    only: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME[/VERSION]]…", help="By default all.", show_default=False),
    ] = None,
    trusted: Annotated[
        Path | None, typer.Option("--trusted", help="Also check that this file lists each, with its digest.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify bundles: digests, signatures, and the golden examples of every graph.

    Prints a line `<sha256>  <name>/<version>` for each that is whole, as OCTET_TRUSTED_DIGESTS takes them.
    """
    from bundle.errors import BundleError
    from bundle.trusted import read_trusted

    logging.getLogger("bundle").setLevel(logging.ERROR)  # its warnings are printed below
    found: list[dict[str, Any]] = []
    with failing_in_one_line():
        listed = read_trusted(trusted) if trusted is not None else None
        for directory in _chosen(models, only or []):
            name = f"{directory.parent.name}/{directory.name}"
            row: dict[str, Any] = {"name": name, "sha256": None, "state": "ok", "warnings": []}
            try:
                predictors = _load_all(directory)
                if listed is not None:
                    listed.check(predictors[0].bundle)
                row["sha256"] = predictors[0].bundle.manifest_sha256
                row["warnings"] = [each.fallback for each in predictors if each.fallback is not None]
            except BundleError as error:
                row["state"] = str(error)
            found.append(row)
            if not as_json:
                _print_verified(row)
    if as_json:
        print_json(found)
    if any(row["state"] != "ok" for row in found):
        raise typer.Exit(FAILED)


def publish(
    directory: Annotated[Path, typer.Argument(help="A finished bundle, <somewhere>/<name>/<version>.")],
    models: Models = Path("models"),
    as_json: AsJson = False,
) -> None:
    """Verify a finished bundle, and publish it into a repository as the next version of its model."""
    from training.publish import next_version
    from training.publish import publish as put

    logging.getLogger("bundle").setLevel(logging.ERROR)
    with failing_in_one_line():
        predictors = _load_all(directory)
        for predictor in predictors:
            if predictor.fallback is not None:
                raise CommandError(f"{directory}: {predictor.fallback}")
        bundle = predictors[0].bundle
        version = next_version(models, bundle.manifest.name)
        manifest = bundle.manifest.model_copy(update={"version": version})
        target = put(manifest, {name: bundle.read(name) for name in manifest.files}, models)
    if as_json:
        print_json({"name": manifest.name, "version": version, "directory": str(target)})
    else:
        typer.echo(f"published {target}")


def _describe_repository(repository: Path) -> Iterator[dict[str, Any]]:
    from bundle.errors import BundleError
    from bundle.manifest import MANIFEST_FILE, parse_manifest
    from bundle.repository import list_bundles
    from bundle.serving import read_serving

    for name, versions in list_bundles(repository).items():
        problem = None
        aliases: dict[str, int] = {}
        try:
            aliases = read_serving(repository, name).aliases
        except BundleError as error:
            problem = str(error)
        for version in versions:
            directory = repository / name / str(version)
            named = sorted(alias for alias, target in aliases.items() if target == version)
            row: dict[str, Any] = {
                "name": name,
                "version": version,
                "aliases": named,
                "state": problem or "ok",
            }
            try:
                content = (directory / MANIFEST_FILE).read_bytes()
                row |= _describe(directory, parse_manifest(content, directory / MANIFEST_FILE))
            except (BundleError, OSError) as error:
                row["state"] = str(error)
            yield row


def _describe(directory: Path, manifest: Manifest) -> dict[str, Any]:
    files = {precision: directory / graph.file for precision, graph in manifest.graphs.items()}
    metrics = next((graph.metrics for graph in manifest.graphs.values() if graph.metrics is not None), None)
    sizes = {precision: file.stat().st_size for precision, file in files.items()}
    return {
        "task": manifest.task,
        "precisions": list(manifest.graphs),
        "size_bytes": sizes[next(iter(manifest.graphs))],
        "accuracy": None if metrics is None else metrics.accuracy,
    }


def _describe_served(url: str, api_key: str | None) -> Iterator[dict[str, Any]]:
    get = partial(ask, api_key=api_key)
    for name in get(f"{url}/v1/models")["models"]:
        try:
            aliases = get(f"{url}/v1/models/{name}/serving").get("aliases", {})
        except CommandError:  # it may be for administrators only
            aliases = {}
        for status in get(f"{url}/v1/models/{name}")["model_version_status"]:
            version = int(status["version"])
            one = get(f"{url}/v1/models/{name}/versions/{version}")
            metrics = one["graphs"][one["precision"]]["metrics"] or {}
            yield {
                "name": name,
                "version": version,
                "task": one["task"],
                "precision": one["precision"],
                "provider": one["provider"],
                "accuracy": metrics.get("accuracy"),
                "aliases": sorted(alias for alias, target in aliases.items() if target == version),
                "state": "ready" if one["ready"] else "not ready",
            }


def _chosen(repository: Path, only: list[str]) -> Iterator[Path]:
    from bundle.repository import list_bundles

    published = list_bundles(repository)
    if not published:
        raise CommandError(f"the model repository {repository} holds no bundle <name>/<version>")
    known = [f"{name}/{version}" for name, versions in published.items() for version in versions]
    for wanted in only:
        if wanted not in published and wanted not in known:
            raise CommandError(f"there is no {wanted} in {repository}; there are {', '.join(known)}")
    for each in known:
        if not only or each in only or each.rpartition("/")[0] in only:
            yield repository / each


def _load_all(directory: Path) -> list[Predictor]:
    """Load and self-test every graph of a bundle."""
    from bundle.predictor import load_predictor

    first = load_predictor(directory)
    others = [p for p in first.bundle.manifest.graphs if p != first.precision]
    return [first, *(load_predictor(directory, precision=p) for p in others)]


def _print_verified(row: dict[str, Any]) -> None:
    if row["state"] != "ok":
        print_error(row["state"])
        return
    typer.echo(f"{row['sha256']}  {row['name']}")
    for warning in row["warnings"]:
        print_warning(f"{row['name']}: {warning}; on this machine another graph or setting serves")
