"""edgenet results: what was measured, the newest first."""

from __future__ import annotations

from typing import Annotated

import typer

from edgenet.cli import options
from edgenet.cli.terminal import show, show_json, verb, warn


@verb
def results(
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    file: Annotated[str | None, typer.Option(help="Only of this model file: by its contents and by its name.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=1_000_000)] = 20,
    json: options.Json = False,
) -> None:
    """List benchmark results that were kept, the newest first."""
    from edgenet.reports import results as report
    from edgenet.results.kept import recent

    found = recent(limit + 1, device, file)
    more, found = len(found) > limit, found[:limit]
    if json:
        show_json([report.recorded_json(one) for one in found])
    elif found:
        show(report.recorded_table(found))
    if more:
        warn(f"there are older ones than the {limit} shown: give --limit, --device or --file")
    if not found:
        warn("no such result: edgenet bench FILE keeps what it measures")
