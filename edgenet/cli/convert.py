"""edgenet convert: a Keras network becomes float32 or float16 files."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgenet.cli import options
from edgenet.cli.terminal import Progress, show, show_json, verb


class FloatPrecision(str, Enum):
    """Precisions that need no calibration."""

    float32 = "float32"
    float16 = "float16"


@verb
def convert(
    model: options.Model,
    out: options.Out = Path(),
    to: options.To = None,
    precision: Annotated[FloatPrecision, typer.Option(help="Of the weights.")] = FloatPrecision.float32,
    weights: options.Weights = "",
    labels: options.LabelFile = None,
    classes: options.Classes = None,
    input_range: options.InputRangeOption = None,
    size: options.Size = None,
    crop: options.CropOption = options.Crop.center,
    trust: options.Trust = False,
    json: options.Json = False,
) -> None:
    """Convert a Keras network to ONNX and TFLite: raw uint8 RGB in, probabilities out, labels inside."""
    from edgenet import deploy
    from edgenet.reports import proof as report

    order = options.order(to, out, labels, crop)
    with Progress() as progress:
        progress("load the network", 0, 0)
        network = options.network(model, weights, classes, input_range, size, trust, order)
        made = deploy.convert(network, precision.value, order, progress)
    if json:
        show_json([report.artifact_json(one) for one in made])
    else:
        show(report.artifact_table(made))
