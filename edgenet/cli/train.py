"""edgenet train symbols: train the embedded default from scratch."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgenet.cli import options
from edgenet.cli.terminal import Progress, show, show_json, verb


class Trainable(str, Enum):
    """Networks that come with the package."""

    symbols = "symbols"


@verb
def train(
    what: Annotated[Trainable, typer.Argument(help="The embedded classifier.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for weights and record. Default: its name.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the training images.", min=0, max=2**32 - 1)] = 1,
    images: Annotated[int, typer.Option(help="How many training images.")] = 24_000,
    epochs: Annotated[int, typer.Option(help="Passes over them.")] = 14,
    json: options.Json = False,
) -> None:
    """Train the embedded classifier from scratch: generate images, fit, test on an unseen seed, write the record."""
    from edgenet.training import Progress as Step
    from edgenet.training import train as fit

    folder = out or Path(what.value)
    names = {"generate": "generate images", "train": "train, epoch", "test": "test on an unseen seed"}
    with Progress() as progress:

        def tell(step: Step) -> None:
            progress(names[step.phase], step.done, step.total)

        record = fit(folder, seed=seed, images=images, epochs=epochs, progress=tell)
    if json:
        show_json(record)
    else:
        show(
            f"{folder}: top-1 {record.top1:.2%} on {record.test_images} images of unseen seed {record.test_seed}, "
            f"trained in {record.seconds / 60:.1f} minutes, {record.weights_bytes / 1e6:.2f} MB"
        )
