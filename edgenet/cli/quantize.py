"""edgenet quantize: a Keras network becomes integer files, calibrated on the user's own images."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgenet.cli import options
from edgenet.cli.terminal import Progress, show, show_json, verb, warn


class IntegerPrecision(str, Enum):
    """Precisions with integer weights."""

    int8 = "int8"
    int16x8 = "int16x8"
    dynamic = "dynamic"


@verb
def quantize(
    model: options.Model,
    calibration: Annotated[Path, typer.Option(help="Folder of representative images; labels are not needed.")],
    out: options.Out = Path(),
    to: options.To = None,
    precision: Annotated[IntegerPrecision, typer.Option(help="Of weights and activations.")] = IntegerPrecision.int8,
    images: Annotated[int, typer.Option(help="At most this many calibration images, spread evenly.", min=1)] = 200,
    weights: options.Weights = "",
    labels: options.LabelFile = None,
    classes: options.Classes = None,
    input_range: options.InputRangeOption = None,
    size: options.Size = None,
    crop: options.CropOption = options.Crop.center,
    trust: options.Trust = False,
    json: options.Json = False,
) -> None:
    """Quantize a Keras network to int8 (or int16x8, dynamic) ONNX and TFLite."""
    from edgenet import deploy, report
    from edgenet.nets.network import open_network

    with Progress() as progress:
        progress("read the calibration folder", 0, 0)
        chosen = deploy.calibration_images(calibration, images)
        if chosen.too_few:
            warn(f"{calibration} gives {len(chosen.files)} calibration images; ranges are only good from about 100 on")
        names = options.labels_in(labels)
        progress("load the network", 0, 0)
        range_ = options.value(input_range)
        network = open_network(model, weights=weights, classes=classes, input_range=range_, size=size, trust=trust)
        if names is None and network.labels is None:
            warn("no --labels: the classes are called by their numbers")
        order = deploy.Order(
            tuple(f.value for f in dict.fromkeys(to or options.FormatName)),
            out,
            names,
            crop.value,
            options.command_line(),
        )
        made = deploy.quantize(network, precision.value, chosen, order, progress)
    if json:
        show_json([report.artifact_json(one) for one in made])
    else:
        show(report.artifact_table(made))
