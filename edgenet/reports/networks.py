"""Networks -> their layers, sizes and costs, for the terminal and for --json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from edgenet import layers
from edgenet.spec import ModelSpec


def layers_json(spec: ModelSpec) -> dict[str, Any]:
    """Lay a network's layer table, totals and shares out for JSON."""
    table = layers.layout(spec)
    return {
        "name": spec.name,
        "layers": [
            {
                "name": layer.name,
                "type": layer.type,
                "kernel": layer.kernel,
                "stride": layer.stride,
                "input": list(layer.input),
                "output": list(layer.output),
                "parameters": layer.parameters,
                "multiply_adds": layer.multiply_adds,
            }
            for layer in table
        ],
        "parameters": layers.parameters(spec),
        "kernel_weights": layers.kernel_weights(spec),
        "multiply_adds": layers.multiply_adds(spec),
        "shares": [
            {"type": s.type, "layers": s.layers, "kernel_weights": s.kernel_weights, "multiply_adds": s.multiply_adds}
            for s in layers.shares(spec)
        ],
    }


def models_json(specs: Sequence[ModelSpec]) -> list[dict[str, Any]]:
    """Lay the list of networks out for JSON."""
    return [
        {
            "name": spec.name,
            "family": spec.family,
            "variant": spec.variant,
            "alpha": spec.alpha,
            "size": spec.size,
            "parameters": layers.parameters(spec),
            "multiply_adds": layers.multiply_adds(spec),
        }
        for spec in specs
    ]


def models_table(specs: Sequence[ModelSpec]) -> Table:
    """Draw the list of networks, a section a family."""
    table = Table(caption="Any alpha in (0, 2] and any size from 32 up is understood; these have published weights.")
    for column in ("name", "alpha", "size", "parameters", "multiply-adds"):
        table.add_column(column, justify="left" if column == "name" else "right", overflow="fold")
    for before, spec in zip((None, *specs), specs, strict=False):
        if before is not None and spec.family != before.family:
            table.add_section()
        parameters, cost = layers.parameters(spec) / 1e6, layers.multiply_adds(spec) / 1e6
        table.add_row(spec.name, f"{spec.alpha:g}", str(spec.size), f"{parameters:.2f} M", f"{cost:.1f} M")
    return table


def layer_tables(spec: ModelSpec) -> tuple[Table, Table]:
    """Draw a network's layer table, and the share of each layer type."""
    table = Table(title=spec.name)
    for column in ("layer", "type", "kernel", "stride", "input", "output", "parameters", "multiply-adds"):
        table.add_column(column, justify="left" if column in ("layer", "type") else "right", overflow="fold")
    for layer in layers.layout(spec):
        kernel = f"{layer.kernel}x{layer.kernel}" if layer.kernel else ""
        cost = (f"{layer.parameters:,}", f"{layer.multiply_adds:,}") if layer.kernel else ("", "")
        shapes = (str(layer.input), str(layer.output))
        table.add_row(layer.name, layer.type, kernel, str(layer.stride), *shapes, *cost)
    table.add_section()
    parameters, cost_total = layers.parameters(spec), layers.multiply_adds(spec)
    table.add_row("total", "", "", "", "", "", f"{parameters:,}", f"{cost_total:,}", style="bold")
    return table, _share_table(spec)


def _share_table(spec: ModelSpec) -> Table:
    note = "Shares of the kernels' weights, as the papers count (biases and batch normalization left out)."
    table = Table(title="share of each layer type", caption=note)
    for column in ("type", "layers", "weights", "share", "multiply-adds", "share"):
        table.add_column(column, justify="left" if column == "type" else "right", overflow="fold")
    weights, cost = layers.kernel_weights(spec), layers.multiply_adds(spec)
    for s in layers.shares(spec):
        table.add_row(
            s.type,
            str(s.layers),
            f"{s.kernel_weights:,}",
            f"{s.kernel_weights / weights:.2%}",
            f"{s.multiply_adds:,}",
            f"{s.multiply_adds / cost:.2%}",
        )
    return table
