"""The commands of `octet`."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="octet",
    help="Serve quantized models with honest confidence, and train them.",
    no_args_is_help=True,
    add_completion=False,
)
# The commands below have their own parsers, which know every setting and its help text.
_HANDED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.callback()
def octet() -> None:
    """Serve quantized models with honest confidence, and train them."""


@app.command(context_settings=_HANDED_ON)
def serve(context: typer.Context) -> None:
    """Serve the model repository over HTTP (--workers N, --port …; `octet serve --help` lists all)."""
    from service.__main__ import main as service

    raise typer.Exit(service(context.args))


@app.command(context_settings=_HANDED_ON)
def train(context: typer.Context) -> None:
    """Train a model and publish it (a recipe, then its options; `octet train --help` lists them)."""
    from training.__main__ import main as training

    raise typer.Exit(training(context.args))


def main() -> None:
    """Run the command that the arguments name."""
    app()
