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


class Effort(str, Enum):
    """How much is done for accuracy."""

    plain = "plain"
    fast = "fast"


@verb
def quantize(
    model: options.Model,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of representative images, unlabelled; dynamic needs none.")
    ] = None,
    out: options.Out = Path(),
    to: options.To = None,
    precision: Annotated[IntegerPrecision, typer.Option(help="Of weights and activations.")] = IntegerPrecision.int8,
    effort: Annotated[
        Effort,
        typer.Option(help="fast: correct biases where that helps (from 20 images on); plain: do not."),
    ] = Effort.fast,
    limit: Annotated[int, typer.Option(help="At most this many calibration images, spread evenly.", min=1)] = 200,
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
    from edgenet.errors import UsageError
    from edgenet.order import Calibration, calibration_images

    order = options.order(to, out, labels, crop)
    with Progress() as progress:
        if precision is IntegerPrecision.dynamic and calibration is not None:
            raise UsageError("dynamic quantizes activations while it runs; leave --calibration out")
        if precision is IntegerPrecision.dynamic:
            chosen = Calibration((), "")
        elif calibration is None:
            raise UsageError(f"{precision.value} needs --calibration DIR: about 200 images like those it will meet")
        else:
            progress("read the calibration folder", 0, 0)
            chosen = calibration_images(calibration, limit)
            if chosen.too_few:
                warn(f"{calibration} gives {len(chosen.files)} calibration images; ranges are good from about 100 on")
        progress("load the network", 0, 0)
        network = options.network(model, weights, classes, input_range, size, trust, order)
        made = deploy.quantize(network, precision.value, chosen, order, progress, effort=effort.value)
    if precision is IntegerPrecision.int16x8:
        warn("LiteRT has no fast int16 kernels: an int16x8 file is many times slower than float32; see edgenet bench")
    if json:
        show_json([report.artifact_json(one) for one in made])
    else:
        show(report.artifact_table(made))
