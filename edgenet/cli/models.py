"""edgenet models: the families, their alphas and sizes, and what they cost."""

from __future__ import annotations

from edgenet.cli import options
from edgenet.cli.terminal import show, show_json, verb


@verb
def models(json: options.Json = False) -> None:
    """List the networks: families, alphas, sizes, parameters, multiply-adds."""
    from edgenet.reports import networks as report
    from edgenet.spec import published

    if json:
        show_json(report.models_json(published()))
    else:
        show(report.models_table(published()))
