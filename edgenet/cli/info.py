"""edgenet info: one network's layer table."""

from __future__ import annotations

import dataclasses
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgenet.cli import options
from edgenet.cli.terminal import show, show_json, verb


class Block(str, Enum):
    """What V1's blocks are built from."""

    separable = "separable"
    standard = "standard"


@verb
def info(
    name: Annotated[str, typer.Argument(help="A network, such as mobilenet_v2_0.35_96.")],
    block: Annotated[Block, typer.Option(help="V1 only: build it from standard 3x3 convolutions.")] = Block.separable,
    classes: Annotated[int, typer.Option(help="How many classes it answers.", min=2)] = 1000,
    json: options.Json = False,
) -> None:
    """Print the layer table, the totals, and the share of each layer type."""
    from edgenet.errors import UsageError
    from edgenet.nets.network import names_a_network
    from edgenet.reports import networks as report
    from edgenet.spec import ModelSpec

    if not names_a_network(name) and Path(name).exists():
        kind = "folder" if Path(name).is_dir() else "file"
        raise UsageError(f"{name} is a {kind}: info shows networks by name; what a model file is, its .json says")
    if name == "symbols":
        from edgenet.symbols.embedded import SPEC

        like = f"{SPEC.name} --classes {SPEC.classes}"
        raise UsageError(f"symbols is a network by another name, trained: edgenet info {like}")
    spec = ModelSpec.parse(name, classes)
    if block is Block.standard and spec.variant:
        raise UsageError(f"{spec.name} is a variant already; --block goes with plain mobilenet_v1")
    if block is Block.standard:
        spec = dataclasses.replace(spec, variant="standard")
    if json:
        show_json(report.layers_json(spec))
        return
    for table in report.layer_tables(spec):
        show(table)
