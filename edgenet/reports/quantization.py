"""What quantize made, for the terminal and for --json: what was tried, the files, what each layer loses."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from edgenet.reports import proof
from edgenet.reports.figures import megabytes

if TYPE_CHECKING:
    from converters.int8.explain import Loss
    from edgenet.artifact import Attempt
    from edgenet.quantization import Quantized

HARMLESS_DB = 200.0


def document(made: Quantized) -> list[dict[str, Any]]:
    """Lay the files out for JSON, each with its whole manifest and what it loses."""
    drops = made.drops or (None,) * len(made.files)
    losses = [dataclasses.asdict(loss) for loss in made.losses]
    return [
        {
            **proof.artifact_json(file),
            "float_top1": made.float_top1,
            "top1_drop_points": drop,
            "advice": made.advice,
            "losses": losses,
        }
        for file, drop in zip(made.files, drops, strict=True)
    ]


def tables(made: Quantized) -> list[Table]:
    """Draw what was tried, the files, and where it was asked for each layer's loss."""
    drawn = [_losses_table(made.losses)] if made.losses else []
    attempts: dict[Attempt, None] = {}
    for file in made.files:
        if file.manifest.quantization:
            attempts |= dict.fromkeys(file.manifest.quantization.attempts)
    if attempts:
        drawn.append(_attempts_table(tuple(attempts), made.float_top1))
    return [*drawn, proof.artifact_table(made.files)]


def _attempts_table(attempts: tuple[Attempt, ...], float_top1: float | None) -> Table:
    note = "agreement and SQNR: with the float network, on calibration images that no correction has seen"
    table = Table(title="what was tried", caption=note)
    for column in ("step", "in", "agreement", "SQNR", "top-1", "size", "latency, 1 thread", "", "why"):
        table.add_column(column, justify="left" if column in ("step", "in", "", "why") else "right", overflow="fold")
    if float_top1 is not None:
        table.add_row("float32", "Keras", "", "", f"{float_top1:.1%}", "", "", "", "")
    for one in attempts:
        table.add_row(
            one.what,
            one.subject,
            f"{one.top1_agreement:.1%}",
            f"{one.sqnr_db:.1f} dB",
            "" if one.top1 is None else f"{one.top1:.1%}",
            "" if one.file_bytes is None else megabytes(one.file_bytes),
            "" if one.latency_ms is None else f"{one.latency_ms:.3f} ms",
            Text("kept" if one.kept else "", style="green"),
            one.why,
            style="" if one.kept else "dim",
        )
    return table


def _losses_table(losses: tuple[Loss, ...]) -> Table:
    note = "SQNR in dB; alone: of the logits with this in 8 bits and all else float; accumulated: of the layer's answer"
    table = Table(title="what each layer loses, worst first", caption=note)
    for column in ("layer", "weights alone", "activations alone", "accumulated", "why"):
        table.add_column(column, justify="left" if column in ("layer", "why") else "right", overflow="fold")
    for loss in losses:
        table.add_row(
            loss.layer,
            _db(loss.weights_db),
            _db(loss.activation_db),
            _db(loss.accumulated_db),
            "stays float" if loss.kept_float else loss.why,
        )
    return table


def _db(value: float | None) -> str:
    return "" if value is None or value >= HARMLESS_DB else f"{value:.1f}"
