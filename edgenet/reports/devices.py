"""Devices -> tables for the terminal and documents for --json. No probing, no files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from devices import doctor
    from devices.check import Check, Sighting
    from devices.cpuinfo import Cluster
    from devices.device import DeviceInfo
    from devices.registry import Target


def target_json(target: Target) -> dict[str, Any]:
    """Lay out for JSON how a device is reached."""
    key = str(target.key) if target.key else None
    return {**dataclasses.asdict(target), "key": key, "profile": target.profile or None}


def sighting_json(one: Sighting) -> dict[str, Any]:
    """Lay out for JSON whether a device answers, and what it is."""
    return {
        **target_json(one.target),
        "profile": one.profile.name if one.profile else None,
        "reachable": one.info is not None,
        "connect_ms": one.connect_ms if one.info else None,
        "trouble": one.trouble,
        "info": dataclasses.asdict(one.info) if one.info else None,
    }


def checks_json(one: Sighting, checks: Sequence[Check]) -> dict[str, Any]:
    """Lay out for JSON what a device has for a benchmark."""
    fit = all(check.ok for check in checks if check.needed)
    return {**sighting_json(one), "fit": fit, "checks": [dataclasses.asdict(check) for check in checks]}


def sightings_table(sightings: Sequence[Sighting]) -> Table:
    """Draw the devices that are known, and whether they answer."""
    table = Table()
    for column in ("name", "kind", "address", "profile", "reachable", "what it is"):
        table.add_column(column, overflow="fold")
    for one in sightings:
        answers = Text(f"{one.connect_ms:.0f} ms", style="green") if one.info else Text("no", style="red")
        said = one.info.board if one.info else one.trouble
        profile = one.profile.name if one.profile else ""
        table.add_row(one.target.name, one.target.kind, one.target.address, profile, answers, said)
    return table


def info_table(one: Sighting) -> Table:
    """Draw what a device told of itself, and what is known of it beforehand; empty where it does not answer."""
    table = Table(show_header=False, title=one.target.name)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    info = one.info
    if info is None:
        return table
    bits = f", {info.bits}-bit programs" if info.bits else ""
    rows = [
        ("board", info.board),
        ("profile", f"{one.profile.name}: {one.profile.title}" if one.profile else "none fits"),
        ("reached", f"{one.target.kind} {one.target.address}".strip() + f", {one.connect_ms:.0f} ms"),
        ("system", f"{info.os}{bits}{f', {info.libc}' if info.libc else ''}"),
        ("kernel", f"{info.kernel}, {info.arch}"),
        *(("processors", _cluster(cluster)) for cluster in info.clusters),
        ("instructions", ", ".join(info.isa) or "none that int8 or float16 gains from"),
        ("memory", _memory(info)),
        *_phone(info),
        *_state(info),
    ]
    for name, text in rows:
        table.add_row(name, text)
    return table


def checks_table(checks: Sequence[Check]) -> Table:
    """Draw what a device has for a benchmark, and what to do about what it lacks."""
    table = Table()
    for column in ("", "what", "found", "to do"):
        table.add_column(column, overflow="fold")
    for check in checks:
        mark = Text("ok", style="green") if check.ok else Text("--", style="red" if check.needed else "yellow")
        table.add_row(mark, check.name, check.found, check.fix)
    return table


def _cluster(cluster: Cluster) -> str:
    first, last = cluster.cpus[0], cluster.cpus[-1]
    consecutive = cluster.cpus == tuple(range(first, last + 1))
    numbers = (f"{first}-{last}" if last > first else f"{first}") if consecutive else ",".join(map(str, cluster.cpus))
    clock = f", up to {cluster.max_khz / 1e3:.0f} MHz" if cluster.max_khz else ""
    return f"{len(cluster.cpus)} x {cluster.part or 'unknown'}{clock} (number {numbers})"


def _memory(info: DeviceInfo) -> str:
    memory = f"{info.ram_bytes / 2**20:,.0f} MiB" if info.ram_bytes else "not told"
    return f"{memory}, pages of {info.page_bytes // 1024} KiB" if info.page_bytes else memory


def _phone(info: DeviceInfo) -> list[tuple[str, str]]:
    phone = info.android
    if phone is None:
        return []
    battery = f", battery {phone.battery_percent} %" if phone.battery_percent is not None else ""
    screen = {True: ", screen on", False: ", screen off", None: ""}[phone.screen_on]
    return [("phone", f"{phone.soc or phone.board}, API level {phone.api_level}, {phone.abi}{battery}{screen}")]


def _state(info: DeviceInfo) -> list[tuple[str, str]]:
    state = info.state
    clock = f"{state.frequency_khz / 1e3:.0f} MHz" if state.frequency_khz else ""
    governor = f"{state.governor} ({state.clock_driver})" if state.clock_driver else state.governor or ""
    return [
        ("governor", governor or "not told"),
        ("clock now", clock or "not told"),
        ("temperature", f"{state.temperature_c:.1f} °C" if state.temperature_c is not None else "not told"),
        ("load", f"{state.load_1m:.2f}" if state.load_1m is not None else "not told"),
        *([("throttle bits", f"{state.throttled:#x}")] if state.throttled is not None else []),
    ]


def doctor_table(checks: Sequence[doctor.Check]) -> Table:
    """Draw what this machine has, and what to do about what it lacks."""
    table = Table()
    for column in ("", "what", "found", "needed for", "to do"):
        table.add_column(column, overflow="fold")
    for check in checks:
        mark = Text("ok", style="green") if check.ok else Text("--", style="red")
        table.add_row(mark, check.name, check.found, ", ".join(check.needed_for), check.fix)
    return table
