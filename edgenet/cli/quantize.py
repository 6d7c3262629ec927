"""edgenet quantize: a Keras network becomes integer files, calibrated on the user's own images."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenet.cli import options
from edgenet.cli.onnx_here import warn_where_int8_needs_it
from edgenet.cli.terminal import Progress, show, show_json, verb, warn

if TYPE_CHECKING:
    from edgenet.order import Calibration


MAX_DROP = 0.5
"""Points of top-1 that a file may lose."""

LIMIT = 200
"""Calibration images."""


class IntegerPrecision(str, Enum):
    """Precisions with integer weights."""

    int8 = "int8"
    int16x8 = "int16x8"
    dynamic = "dynamic"


class Effort(str, Enum):
    """How much is done for accuracy."""

    plain = "plain"
    fast = "fast"
    best = "best"


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
        Effort | None,
        typer.Option(
            help="plain: calibration alone; fast (default): every correction that helps; best, of int8: distillation."
        ),
    ] = None,
    keep_float: Annotated[
        list[str] | None, typer.Option(metavar="auto|none|LAYER", help="What computes in float; may be repeated.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Folder of labelled images, one folder a class, to measure top-1 on.")
    ] = None,
    validation_limit: Annotated[
        int | None, typer.Option(help="At most this many of them, spread evenly: every step is measured on all.", min=1)
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Points of top-1 that a file may lose on --validation (0.5); more: exit 3.",
            min=0,
            callback=options.finite,
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each layer loses, and why.")] = False,
    limit: Annotated[
        int | None, typer.Option(help="At most this many calibration images, spread evenly (200).", min=1)
    ] = None,
    weights: options.Weights = "",
    labels: options.LabelFile = None,
    classes: options.Classes = None,
    input_range: options.InputRangeOption = None,
    size: options.Size = None,
    crop: options.CropOption = options.Crop.center,
    trust: options.Trust = False,
    json: options.Json = False,
) -> None:
    """Quantize a Keras network to int8 (or int16x8, dynamic) ONNX and TFLite; exit 3 if --max-drop is missed."""
    from edgenet import quantization
    from edgenet.errors import GateMissed, UsageError
    from edgenet.order import AUTO, NONE, Demand
    from edgenet.reports import quantization as report

    order = options.order(to, out, labels, crop)
    if (effort or limit) and precision is IntegerPrecision.dynamic:
        option = "--effort" if effort else "--limit"
        raise UsageError(f"nothing is calibrated or corrected in dynamic; leave {option} out")
    kept = tuple(keep_float or (AUTO,))
    allowed = MAX_DROP if max_drop is None else max_drop
    if len(kept) > 1 and {AUTO, NONE} & set(kept):
        raise UsageError("--keep-float takes auto, or none, or names of layers; not a mixture")
    if (keep_float or explain) and (precision is not IntegerPrecision.int8 or effort is Effort.plain):
        raise UsageError("--keep-float and --explain belong to int8 with --effort fast or best")
    if (max_drop is not None or validation_limit is not None) and validation is None:
        option = "--validation-limit" if max_drop is None else "--max-drop"
        raise UsageError(f"{option} needs --validation DIR: labelled images to measure top-1 on")
    with Progress() as progress:
        progress("read the calibration folder", 0, 0)
        chosen = _calibration(precision, calibration, validation, limit or LIMIT)
        progress("load the network", 0, 0)
        network = options.network(model, weights, classes, input_range, size, trust, order)
        demand = Demand(
            effort=(effort or Effort.fast).value,
            keep_float=kept,
            validation=options.validation(validation, network, order, validation_limit) if validation else None,
            max_drop=allowed if validation else None,
            explain=explain,
        )
        options.tell_left_out(calibration, validation)
        made = quantization.quantize(network, precision.value, chosen, order, progress, demand=demand, warn=warn)
    if precision is IntegerPrecision.int16x8:
        warn("no runtime has fast int16 kernels: an int16x8 file is many times slower than float32; see edgenet bench")
    warn_where_int8_needs_it((one.path, one.manifest.precision) for one in made.files)
    if json:
        show_json(report.document(made))
    else:
        for table in report.tables(made):
            show(table)
    worst = max(made.drops, default=0.0)
    if worst > allowed:
        # A drop of 0.504 must not read as the 0.5 that is allowed.
        shown = next((text for n in range(1, 6) if float(text := f"{worst:.{n}f}") > allowed), f"{worst}")
        raise GateMissed(f"top-1 drops by {shown} points, more than {allowed:g}; {made.advice}")


def _calibration(precision: IntegerPrecision, folder: Path | None, validation: Path | None, limit: int) -> Calibration:
    """Choose the calibration images; dynamic takes none, the others need some."""
    from edgenet.errors import UsageError
    from edgenet.order import Calibration, calibration_images

    if precision is IntegerPrecision.dynamic:
        if folder is not None or validation is not None:
            raise UsageError("dynamic quantizes activations while it runs; leave --calibration and --validation out")
        return Calibration((), "")
    if folder is None:
        raise UsageError(f"{precision.value} needs --calibration DIR: about 200 images like those it will meet")
    return calibration_images(folder, limit)
