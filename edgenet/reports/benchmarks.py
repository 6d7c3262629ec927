"""Benchmark rows -> a table for the terminal and documents for --json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from edgenet.reports.figures import figure, megabytes
from edgenet.reports.short_names import short_names

if TYPE_CHECKING:
    from pathlib import Path

    from devices.latency import Latency
    from edgenet.benchmarking import Benchmark, Profile, Row

_COLOURS = {"valid": "green", "unstable": "yellow", "throttled": "red"}
_LEFT = ("device", "file", "operator", "runs on", "verdict")
MOST_OPERATORS = 15

MANY_OUTLIERS = 0.1
"""Share of runs far from the rest from which on they are told of."""

_LOGITS = (
    "an int8 TFLite file without islands of float has the same logits everywhere, and the softmax behind them differs "
    "in its last bits between families of processors: edgenet verify tells whether it is more than that"
)
_LAST_BITS = "the last bits of a float answer may differ between families of processors"


def document(result: Benchmark) -> dict[str, Any]:
    """Lay a benchmark out for JSON, every sample kept."""
    return {
        "command": result.command,
        "tools": result.tools,
        "rows": [{**row_json(row), "started_at": row.started_at} for row in result.rows],
        "operators": [
            {
                **dataclasses.asdict(one),
                "path": str(one.path),
                "operators": list(map(dataclasses.asdict, one.operators)),
            }
            for one in result.profiles
        ],
        "failures": list(result.failures),
    }


def row_json(row: Row) -> dict[str, Any]:
    """Lay a row out for JSON, every sample kept."""
    return {
        **latency_json(row.latency),
        "precision": row.precision,
        "runner": row.runner,
        "board": row.board,
        "gain": dataclasses.asdict(row.gain) if row.gain else None,
        "published": row.published,
        "threads_note": row.threads_note,
        "outside": row.outside,
        "conditions": row.conditions,
    }


def latency_json(one: Latency) -> dict[str, Any]:
    """Lay a latency out for JSON, every sample kept; samples_ns: those that count."""
    document = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    return {**document, "path": str(one.path), "samples_ns": one.samples_ns.tolist()}


def tables(result: Benchmark) -> tuple[Table, ...]:
    """Draw how fast files run, and where their time goes."""
    return ((table(result.rows),) if result.rows else ()) + tuple(map(operators, result.profiles))


def operators(profile: Profile) -> Table:
    """Draw the operators of one file that take longest."""
    whole = sum(one.us for one in profile.operators) or 1.0
    longest = sorted(profile.operators, key=lambda one: -one.us)
    shown = Table(
        title=f"{profile.path.name} on {profile.device}, {profile.threads} thread{'s' * (profile.threads > 1)}",
        caption=f"{len(longest)} operators, {whole / 1e3:.2f} ms in all; profiling slows them",
    )
    for column in ("operator", "us", "share", "runs on"):
        shown.add_column(column, justify="left" if column in _LEFT else "right", overflow="fold")
    for one in longest[:MOST_OPERATORS]:
        shown.add_row(one.name, f"{one.us:.1f}", f"{100 * one.us / whole:.1f}%", one.delegate)
    return shown


def table(rows: Sequence[Row]) -> Table:
    """Draw how fast files run: one row for each file, device and number of threads."""
    devices = {row.latency.device for row in rows}
    caption = "median of interleaved fresh starts; 95 % interval by bootstrap; cold start: load + first run"
    if any(row.runner == "python" for row in rows):
        caption += "; memory on this machine: Python's included"
    if any(row.gain for row in rows):
        caption += "; gain: over the float32 file of the same network"
    shown = Table(caption=caption)
    first = ("device",) if devices != {"local"} else ()
    for column in (
        *first,
        "file",
        "threads",
        "median",
        "interval",
        "p90",
        "p99",
        "cold start",
        "memory",
        "size",
        "gain",
        "runs on",
        "verdict",
    ):
        shown.add_column(column, justify="left" if column in _LEFT else "right", overflow="fold")
    names = short_names(row.latency.path for row in rows)
    for row in rows:
        one = row.latency
        delegated = f" {one.delegated_ops}/{one.ops} ops" if one.ops and one.delegated_ops is not None else ""
        shown.add_row(
            *((one.device,) if first else ()),
            names[one.path],
            str(one.threads),
            f"{figure(one.median_ms)} ms",
            f"{figure(one.ci95_ms[0])} .. {figure(one.ci95_ms[1])}" if one.ci95_ms else "",
            f"{figure(one.p90_ms)} ms",
            f"{figure(one.p99_ms)} ms",
            f"{one.cold_start_ms:.0f} ms",
            f"{one.peak_rss_bytes / 1e6:.0f} MB",
            megabytes(one.file_bytes),
            f"{figure(row.gain.ratio.value)}x" if row.gain else "",
            (one.delegate or one.runtime) + delegated,
            Text(one.verdict, style=_COLOURS[one.verdict]),
        )
    return shown


def too_few(repetitions: int) -> tuple[str, ...]:
    """Say what so few repetitions leave open; () where there are enough."""
    from edgenet.results.compare import ENOUGH

    if repetitions >= ENOUGH:
        return ()
    return (
        f"--repetitions {repetitions}: too few to know how steady a median is, whatever the verdict: intervals are of "
        f"95 % from {ENOUGH} on",
    )


def remarks(rows: Sequence[Row]) -> tuple[str, ...]:
    """Say in a line each what a reader of the table should know: why int8 is not faster, why a verdict is not valid."""
    names = short_names(row.latency.path for row in rows)
    said = [f"{_where(row, names)}: {words}" for row in rows for words in _remarks(row)]
    return (*dict.fromkeys(said), *_disagreements(rows, names))


def _where(row: Row, names: Mapping[Path, str]) -> str:
    one = row.latency
    return f"{names[one.path]} on {one.device}, {one.threads} thread{'s' * (one.threads > 1)}"


def _remarks(row: Row) -> list[str]:
    one, said = row.latency, []
    if one.verdict != "valid":
        said.append(f"{one.verdict}: {one.why}")
    gaps = sum(each.after_gap for each in one.repetitions)
    if gaps:
        said.append(f"the device was lost before {gaps} of {len(one.repetitions)} repetitions, and came back")
    hot = sum(each.hot for each in one.repetitions)
    if hot:
        said.append(
            f"{hot} of {len(one.repetitions)} repetitions began before it had cooled down: "
            "give it air, or time fewer files at once"
        )
    runs = len(one.samples_ns)
    if one.outliers > MANY_OUTLIERS * runs:
        said.append(f"{one.outliers} of {runs} runs lie far from the rest; they are counted in")
    if one.delegate_note:
        said.append(one.delegate_note)
    if row.gain and row.gain.why:
        said.append(f"{figure(row.gain.ratio.value)}x its float sibling's speed: {row.gain.why}")
    return [*said, *filter(None, (row.outside, row.published, row.threads_note, *row.conditions))]


def _disagreements(rows: Sequence[Row], names: Mapping[Path, str]) -> list[str]:
    """Say which files answer the same input differently on the devices of a call."""
    answers: dict[str, dict[str, Row]] = {}
    for row in rows:
        answers.setdefault(row.latency.sha256, {}).setdefault(row.latency.output_hash, row)
    said = []
    for differing in (list(one.values()) for one in answers.values() if len(one) > 1):
        name, devices = names[differing[0].latency.path], dict.fromkeys(row.latency.device for row in differing)
        exact = differing[0].precision == "int8" and name.endswith(".tflite")
        meaning = _LOGITS if exact else _LAST_BITS
        where = f"on {' and on '.join(devices)}" if len(devices) > 1 else "with different numbers of threads"
        said.append(f"{name} answers differently {where}: {meaning}")
    return said
