"""edgenet evaluate: top-1 and top-5 of a model file or a Keras network on labelled images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from edgenet.cli import options
from edgenet.cli.terminal import Progress, show, show_json, verb, warn


@verb
def evaluate(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Model files (.tflite, .onnx), or networks as for convert.")
    ],
    data: Annotated[Path, typer.Option(help="Folder of class folders, named by wnid, label or index.")],
    limit: Annotated[int | None, typer.Option(help="At most this many images, spread evenly.", min=1)] = None,
    labels: options.LabelFile = None,
    wnids: Annotated[
        Path | None,
        typer.Option(
            help="Table (index,wnid,name) for folders named by wnid. Default: classes.csv in or above --data."
        ),
    ] = None,
    weights: options.Weights = "",
    classes: options.Classes = None,
    input_range: options.InputRangeOption = None,
    size: options.Size = None,
    crop: Annotated[
        options.Crop | None,
        typer.Option(
            help="center (default): cut the largest centred part; squash: cut nothing. A manifest says it itself."
        ),
    ] = None,
    min_top1: Annotated[
        float | None,
        typer.Option(help="Exit 3 if a top-1 is below this share, such as 0.7.", min=0, max=1, callback=options.finite),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one a core.", min=1)] = None,
    trust: options.Trust = False,
    json: options.Json = False,
) -> None:
    """Measure top-1 and top-5 with a 95 % interval."""
    from edgenet.errors import GateMissed
    from edgenet.proof import evaluation
    from edgenet.proof.options import EvaluationRequest
    from edgenet.reports import proof as report

    request = EvaluationRequest(
        data=data,
        limit=limit,
        labels=options.labels_in(labels),
        wnids=wnids,
        weights=weights,
        classes=classes,
        input_range=options.value(input_range),
        size=size,
        crop=crop.value if crop else None,
        workers=workers,
        trust=trust,
    )
    with Progress() as progress:
        results = evaluation.evaluate_models(models, request, progress)
    options.tell_left_out(data)
    if json:
        show_json([report.evaluation_json(one) for one in results])
    else:
        show(report.evaluation_table(results))
    for one in results:
        if one.note:
            warn(f"{one.model}: {one.note}")
    # Rounded down: 98.33 % must not read as "98.3 %, below 98.3 %".
    low = [
        f"{one.model} {math.floor(one.accuracy.top1 * 1000) / 10:.1f}%"
        for one in results
        if one.accuracy.top1 < (min_top1 or 0)
    ]
    if low:
        raise GateMissed(f"top-1 below {_percent(min_top1 or 0)}: {', '.join(low)}")


def _percent(share: float) -> str:
    """Write a share with one decimal at least, and as many as it was given with."""
    return f"{max(f'{100 * share:.1f}', f'{100 * share:.6f}'.rstrip('0'), key=len)}%"
