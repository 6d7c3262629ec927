"""Benchmark rows -> a table for the terminal and documents for --json."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from devices.latency import Latency
    from edgenet.benchmarking import Benchmark, Profile, Row

_COLOURS = {"valid": "green", "unstable": "yellow", "throttled": "red"}
_LEFT = ("device", "file", "operator", "runs on", "verdict")
MOST_OPERATORS = 15


def document(result: Benchmark) -> dict[str, Any]:
    """Lay a benchmark out for JSON, every sample kept."""
    return {
        "rows": [row_json(row) for row in result.rows],
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
    shown = Table(
        caption="median of interleaved fresh starts; 95 % interval by bootstrap; cold start: load + first run"
    )
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
    for row in rows:
        one = row.latency
        delegated = f" {one.delegated_ops}/{one.ops} ops" if one.ops and one.delegated_ops is not None else ""
        shown.add_row(
            *((one.device,) if first else ()),
            one.path.name,
            str(one.threads),
            f"{one.median_ms:.2f} ms",
            f"{one.ci95_ms[0]:.2f} .. {one.ci95_ms[1]:.2f}" if one.ci95_ms else "",
            f"{one.p90_ms:.2f} ms",
            f"{one.p99_ms:.2f} ms",
            f"{one.cold_start_ms:.0f} ms",
            f"{one.peak_rss_bytes / 1e6:.0f} MB",
            f"{one.file_bytes / 1e6:.2f} MB",
            f"{row.gain.ratio.value:.2f}x" if row.gain else "",
            (one.delegate or one.runtime) + delegated,
            Text(one.verdict, style=_COLOURS[one.verdict]),
        )
    return shown


def remarks(rows: Sequence[Row]) -> tuple[str, ...]:
    """Say in a line each what a reader of the table should know: why int8 is not faster, why a verdict is not valid."""
    said = []
    for row in rows:
        one = row.latency
        where = f"{one.path.name} on {one.device}, {one.threads} thread{'s' * (one.threads > 1)}"
        if one.verdict != "valid":
            said.append(f"{where}: {one.verdict}: {one.why}")
        if one.delegate_note:
            said.append(f"{where}: {one.delegate_note}")
        if row.gain and row.gain.why:
            said.append(f"{where}: {row.gain.ratio.value:.2f}x its float sibling's speed: {row.gain.why}")
        if row.published:
            said.append(f"{where}: {row.published}")
    return tuple(dict.fromkeys(said))
