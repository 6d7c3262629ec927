"""Kept results and comparisons -> tables for the terminal and documents for --json."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from edgenet.reports.figures import figure
from edgenet.reports.short_names import short_names

if TYPE_CHECKING:
    from edgenet.results.compare import Outcome
    from edgenet.results.kept import Recorded

_COLOURS = {
    "valid": "green",
    "unstable": "yellow",
    "throttled": "red",
    "unfinished": "yellow",
    "faster": "green",
    "no difference": "green",
    "slower": "red",
    "cannot tell": "yellow",
    "no evidence": "red",
}
_LEFT = ("device", "file", "precision", "verdict", "base file", "new file", "timed", "answer")


def recorded_json(one: Recorded) -> dict[str, Any]:
    """Lay a result out for JSON: the medians of its repetitions; every sample stays in the database."""
    document = dataclasses.asdict(one)
    document["ci95_ms"] = document.pop("ci95")
    return document


def recorded_table(found: Sequence[Recorded]) -> Table:
    """Draw results, in the order given; their times in this machine's time zone."""
    table = Table(caption="edgenet compare BASE NEW takes these numbers; 95 % interval by bootstrap")
    columns = ("id", "started", "device", "file", "precision", "threads", "median", "interval", "verdict")
    for column in columns:
        table.add_column(column, justify="left" if column in _LEFT else "right", overflow="fold")
    names = short_names(Path(one.path) for one in found)
    for one in found:
        table.add_row(
            str(one.id),
            datetime.fromisoformat(one.started_at).astimezone().strftime("%Y-%m-%d %H:%M"),
            one.device,
            names[Path(one.path)],
            one.precision,
            str(one.threads),
            f"{figure(one.median_ms)} ms",
            f"{figure(one.ci95[0])} .. {figure(one.ci95[1])}" if one.ci95 else "",
            _coloured(one.verdict),
        )
    return table


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Lay a comparison out for JSON."""
    rows = [
        {
            "base": recorded_json(row.base),
            "new": recorded_json(row.new),
            "ratio": row.ratio,
            "interval": row.interval,
            "paired": row.paired,
            "answer": row.answer,
            "why": row.why,
        }
        for row in outcome.rows
    ]
    return {"tolerance": outcome.tolerance, "rows": rows, "remarks": outcome.remarks}


def outcome_table(outcome: Outcome) -> Table:
    """Draw a comparison: one row a device and number of threads."""
    caption = f"new / base with its 95 % interval; a difference counts from {100 * outcome.tolerance:g} % on"
    if not all(row.paired for row in outcome.rows):
        caption += "; timed apart: what changed on the device in between is part of it"
    table = Table(caption=caption)
    files = ("base file", "new file", "device", "threads")
    for column in (*files, "base", "new", "new / base", "interval", "timed", "answer"):
        table.add_column(column, justify="left" if column in _LEFT else "right", overflow="fold")
    names = short_names(Path(one.path) for row in outcome.rows for one in (row.base, row.new))
    for row in outcome.rows:
        table.add_row(
            names[Path(row.base.path)],
            names[Path(row.new.path)],
            row.base.device,
            str(row.base.threads),
            f"{figure(row.base.median_ms)} ms",
            f"{figure(row.new.median_ms)} ms",
            "" if row.ratio is None else f"{row.ratio:.3f}",
            f"{row.interval[0]:.3f} .. {row.interval[1]:.3f}" if row.interval else "",
            "in turns" if row.paired else "apart",
            _coloured(row.answer),
        )
    return table


def _coloured(word: str) -> Text:
    return Text(word, style=_COLOURS.get(word, ""))
