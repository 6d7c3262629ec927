"""edgenet models: the families, their alphas and sizes, and what they cost."""

from __future__ import annotations

from typing import Annotated

import typer

from edgenet.cli.terminal import show, show_json, verb

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@verb
def models(json: JsonOption = False) -> None:
    """List the networks: families, alphas, sizes, parameters, multiply-adds."""
    from rich.table import Table

    from edgenet import families
    from edgenet.spec import published

    specs = published()
    if json:
        show_json(
            [
                {
                    "name": spec.name,
                    "family": spec.family,
                    "variant": spec.variant,
                    "alpha": spec.alpha,
                    "size": spec.size,
                    "parameters": families.parameters(spec),
                    "multiply_adds": families.multiply_adds(spec),
                }
                for spec in specs
            ]
        )
        return
    table = Table(caption="Any alpha in (0, 2] and any size from 32 up is understood; these have published weights.")
    for column in ("name", "alpha", "size", "parameters", "multiply-adds"):
        table.add_column(column, justify="left" if column == "name" else "right")
    last = specs[0].family
    for spec in specs:
        if spec.family != last:
            table.add_section()
            last = spec.family
        parameters, cost = families.parameters(spec) / 1e6, families.multiply_adds(spec) / 1e6
        table.add_row(spec.name, f"{spec.alpha:g}", str(spec.size), f"{parameters:.2f} M", f"{cost:.1f} M")
    show(table)
