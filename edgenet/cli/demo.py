"""edgenet demo: the whole job, with no network and no data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgenet.cli import options
from edgenet.cli.onnx_here import warn_where_int8_needs_it
from edgenet.cli.terminal import Progress, show, show_json, verb, warn


@verb
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for files and images.")] = Path("demo"),
    json: options.Json = False,
) -> None:
    """Build, convert, quantize, verify, evaluate and measure the embedded classifier of printed symbols."""
    from edgenet import demo as job
    from edgenet.appearing import check_folder
    from edgenet.errors import GateMissed
    from edgenet.reports import benchmarks, proof

    check_folder(out)
    with Progress() as progress:
        result = job.run(out, options.command_line(), progress)
    if json:
        show_json(proof.demo_json(result))
    else:
        show(proof.demo_table(result))
    for remark in benchmarks.remarks([row.speed for row in result.rows]):
        warn(remark)
    warn_where_int8_needs_it((row.artifact.path, row.artifact.manifest.precision) for row in result.rows)
    missed = [row.artifact.path.name for row in result.rows if not row.verification.verdict.passed]
    if missed:
        raise GateMissed(f"not what the float network answers: {', '.join(missed)}")
