"""The commands of `octet`; each group has its own file, and what a command needs is imported when it runs.

Exit codes: 0, it was done; 1, it failed or something was found wrong; 2, the command was not understood.
"""

from __future__ import annotations

import typer

from octet import data, evaluation, imports, models, predict, review
from octet.output import FAILED, print_error

app = typer.Typer(
    name="octet",
    help="Serve quantized models with honest confidence, train them, and bring your own.",
    epilog="Exit codes: 0 done, 1 failed or something was found wrong, 2 not understood.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# The commands below have their own parsers, which know every setting and its help text.
_HANDED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.callback()
def octet() -> None:
    """Serve quantized models with honest confidence, train them, and bring your own."""


@app.command(context_settings=_HANDED_ON)
def serve(context: typer.Context) -> None:
    """Serve the model repository (--workers N, --port …; `octet serve --help` lists all)."""
    from service.__main__ import main as service

    raise typer.Exit(service(context.args))


app.command("models")(models.models)
app.command("predict")(predict.predict)
app.command("import")(imports.import_model)
app.command("verify")(models.verify)
app.command("publish")(models.publish)


@app.command(context_settings=_HANDED_ON)
def train(context: typer.Context) -> None:
    """Train a model and publish it (a recipe, then its options; `octet train --help` lists them)."""
    from training.__main__ import main as training

    raise typer.Exit(training(context.args))


app.command("evaluate")(evaluation.evaluate)
app.add_typer(data.app, name="data")
app.add_typer(review.app, name="review")


def main() -> None:
    """Run the command that the arguments name.

    Where only the service is installed, the commands that train, import or evaluate lack what they need.
    """
    try:
        app()
    except ModuleNotFoundError as error:
        print_error(f"this command needs the package {error.name!r}, which the extra 'training' installs")
        raise SystemExit(FAILED) from error
