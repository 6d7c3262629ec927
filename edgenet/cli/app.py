"""The command `edgenet`: its verbs in the order a user meets them."""

from __future__ import annotations

from typing import Annotated

import typer

from edgenet.cli import bench as bench_verb
from edgenet.cli import camera as camera_verb
from edgenet.cli import cards, convert, demo, doctor, evaluate, info, models, quantize, terminal, train, verify
from edgenet.cli import compare as compare_verb
from edgenet.cli import devices as devices_verb
from edgenet.cli import results as results_verb

app = typer.Typer(
    help="Carry a MobileNet, or your own Keras classifier, to a Raspberry Pi or a phone, with proof at each step.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("edgenet"))
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Plain lines in place of a progress bar.")] = False,
) -> None:
    """Carry a MobileNet, or your own Keras classifier, to a Raspberry Pi or a phone, with proof at each step."""
    terminal.Progress.live = not no_progress


app.command("demo")(demo.demo)
app.command("models")(models.models)
app.command("info")(info.info)
app.command("convert")(convert.convert)
app.command("quantize")(quantize.quantize)
app.command("verify")(verify.verify)
app.command("evaluate")(evaluate.evaluate)
app.command("bench")(bench_verb.bench)
app.command("camera")(camera_verb.camera)
app.add_typer(devices_verb.devices_app, name="devices")
app.command("results")(results_verb.results)
app.command("compare")(compare_verb.compare)
app.command("doctor")(doctor.doctor)
app.command("cards")(cards.cards)
app.command("train")(train.train)
