"""edgenet compare: is one benchmark result slower than another."""

from __future__ import annotations

from typing import Annotated

import typer

from edgenet.cli import options
from edgenet.cli.terminal import show, show_json, verb, warn


@verb
def compare(
    base: Annotated[
        str, typer.Argument(help="What was: a number from edgenet results, a model file, or JSON of edgenet bench.")
    ],
    new: Annotated[str, typer.Argument(help="What is: likewise.")],
    tolerance: Annotated[str, typer.Option(help="What does not count as a difference.")] = "3%",
    device: Annotated[str | None, typer.Option(help="Only results of this device.")] = None,
    threads: Annotated[int | None, typer.Option(help="Only results with this number of threads.", min=1)] = None,
    json: options.Json = False,
) -> None:
    """Say whether NEW is faster or slower than BASE, or neither; exit 3 where it is slower, 0 where nobody can tell."""
    from edgenet.reports import results as report
    from edgenet.results import compare as comparing
    from edgenet.results.kept import find

    share = comparing.parse_tolerance(tolerance)
    outcome = comparing.compare(find(base), find(new), share, device, threads)
    if json:
        show_json(report.outcome_json(outcome))
    else:
        show(report.outcome_table(outcome))
    for remark in outcome.remarks:
        warn(remark)
    comparing.check(outcome)
