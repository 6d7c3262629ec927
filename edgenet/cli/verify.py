"""edgenet verify: does a model file answer what its float network answers?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from edgenet.cli import options
from edgenet.cli.onnx_here import warn_where_int8_needs_it
from edgenet.cli.terminal import Progress, show, show_json, verb, warn


@verb
def verify(
    files: options.Files,
    images: Annotated[
        Path | None, typer.Option(help="Folder of your images, with or without class folders. Default: generated ones.")
    ] = None,
    against: Annotated[str, typer.Option(help="The float network; default: the one the manifest names.")] = "",
    weights: options.Weights = "",
    classes: options.Classes = None,
    limit: Annotated[int, typer.Option(help="At most this many images, spread evenly.", min=1)] = 300,
    input_range: options.InputRangeOption = None,
    size: options.Size = None,
    trust: options.Trust = False,
    json: options.Json = False,
) -> None:
    """Compare files with their float Keras network on real images; exit 3 if one misses its precision's gate."""
    from edgenet.dataset import image_files
    from edgenet.errors import GateMissed
    from edgenet.nets.network import open_float
    from edgenet.proof import verification
    from edgenet.proof.agreement import proves_little
    from edgenet.proof.options import check_verify
    from edgenet.reports import proof as report
    from edgenet.reports.short_names import short_names

    range_ = options.value(input_range)
    check_verify(files, against, weights, classes, range_, size)
    with Progress() as progress, tempfile.TemporaryDirectory() as generated:
        pictures = image_files(images or verification.generated_images(Path(generated)), limit)
        network = None
        if against:
            progress("load the float network", 0, 0)
            network = open_float(against, weights, classes, range_, size, trust)
        results = verification.verify_files(
            files, pictures, against=network, input_range=range_, trust=trust, progress=progress
        )
    if images is None:
        warn("no --images: generated pictures of symbols stand in; int8 is only judged well on images of your own")
    options.tell_left_out(images)
    warn_where_int8_needs_it((one.file, one.precision) for one in results)
    if json:
        show_json([report.verification_json(one) for one in results])
    else:
        show(report.verification_table(results))
    doubtful = [one for one in results if one.verdict.passed and proves_little(one.one_answer, one.precision)]
    for share in dict.fromkeys(one.one_answer for one in doubtful):
        warn(
            f"the float network says the same of {share:.1%} of these images: a file that always says it would pass, "
            "too; give images of every class"
        )
    names = short_names(one.file for one in results)
    missed = [f"{names[one.file]} ({', '.join(one.verdict.reasons)})" for one in results if not one.verdict.passed]
    if missed:
        raise GateMissed(f"not what the float network answers: {'; '.join(missed)}")
