"""edgenet devices: the machines that files are benchmarked on, what they are, and whether they are fit for it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenet.cli import options
from edgenet.cli.terminal import Progress, show, show_json, verb, warn

if TYPE_CHECKING:
    from devices.check import Sighting
    from devices.registry import Target

devices_app = typer.Typer(invoke_without_command=True)

Name = Annotated[str, typer.Argument(help="A named device, local, user@host, or android:SERIAL.")]


@devices_app.callback()
def devices(context: typer.Context, json: options.Json = False) -> None:
    """List what can be benchmarked on: this machine, named devices, phones; without a subcommand."""
    if json or context.invoked_subcommand is None:  # else the terminal is the subcommand's, whose --help goes to stdout
        _list(context.invoked_subcommand, json)


@verb
def _list(subcommand: str | None, json: bool) -> None:
    if subcommand is not None:
        from edgenet.errors import UsageError

        raise UsageError(f"--json goes behind {subcommand}")
    from devices.check import survey
    from edgenet.reports import devices as report

    with Progress() as progress:
        progress("look for devices", 0, 0)
        seen = survey()
    if json:
        show_json([report.sighting_json(one) for one in seen])
    else:
        show(report.sightings_table(seen))


@devices_app.command()
@verb
def add(
    name: Annotated[str, typer.Argument(help="What you will call it.")],
    address: Annotated[str, typer.Argument(help="host, user@host, ssh://user@host:port, or android:SERIAL.")],
    key: Annotated[Path | None, typer.Option(help="File of the ssh key; otherwise ssh chooses.")] = None,
    profile: Annotated[str, typer.Option(help="Its profile; otherwise the one that fits what it is.")] = "",
    no_check: Annotated[bool, typer.Option("--no-check", help="Name it without reaching for it.")] = False,
    json: options.Json = False,
) -> None:
    """Name a device, once it has answered."""
    from devices import profile as profiles
    from devices import registry
    from edgenet.reports import devices as report

    known = profiles.find(profile).name if profile else ""
    target = registry.addressed(name, address, key.expanduser().absolute() if key else None, known)
    registry.admit(target)
    seen = None if no_check else _look(target, "; with --no-check it is named all the same")
    registry.add(target)
    if seen and seen.info and seen.profile:
        wrong = profiles.contradicted(seen.profile, seen.info)
        if wrong:
            warn(f"{name}: {wrong}; edgenet devices remove it, and add it without --profile")
    if json:
        show_json(report.sighting_json(seen) if seen else report.target_json(target))
    elif seen:
        show(report.info_table(seen))


@devices_app.command("show")
@verb
def show_device(name: Name, json: options.Json = False) -> None:
    """Show what a device is: board, processors, instructions, memory, system, governor, temperature."""
    from devices import registry
    from edgenet.reports import devices as report

    seen = _look(registry.find(name))
    if json:
        show_json(report.sighting_json(seen))
    else:
        show(report.info_table(seen))


@devices_app.command()
@verb
def check(name: Name, json: options.Json = False) -> None:
    """Check each thing that a benchmark needs there, and say what to do; exit 1 where it is not fit."""
    from devices import registry
    from devices.check import examine
    from devices.errors import DeviceUnfit
    from edgenet.reports import devices as report

    with Progress() as progress:
        progress(f"examine {name}", 0, 0)
        seen, checks = examine(registry.find(name))
    if json:
        show_json(report.checks_json(seen, checks))
    else:
        show(report.checks_table(checks))
    lacking = [one.name for one in checks if one.needed and not one.ok]
    if lacking:
        raise DeviceUnfit(f"{name} cannot be benchmarked yet: {', '.join(lacking)}")


@devices_app.command()
@verb
def setup(name: Name, json: options.Json = False) -> None:
    """Put the runtime that benchmarks models onto a device; downloads what is not cached, checks every hash."""
    from devices import registry
    from devices.device import probe
    from devices.native import bundle
    from devices.native.place import require_64_bit
    from devices.shells.lock import DeviceLock
    from devices.shells.store import Store

    target = registry.find(name)
    with registry.open_shell(target) as shell, Progress() as progress:
        progress(f"reach {name}", 0, 0)
        info = probe(shell, target.kind)
        require_64_bit(name, info.arch, info.bits)
        archive = bundle.assemble(
            info.arch, lambda done, total, what: progress(f"assemble {what}".rstrip(), done, total)
        )
        progress(f"push the runtime to {name}", 0, 0)
        with DeviceLock(shell):
            folder, moved = Store(shell).put_bundle(archive)
    if json:
        show_json({"name": name, "arch": info.arch, "folder": folder, "moved_bytes": moved})
    else:
        show(f"{name}: the runtime is in {folder}; {moved / 1e6:.1f} MB moved")


@devices_app.command()
@verb
def clean(name: Name, json: options.Json = False) -> None:
    """Remove from a device what edgenet has put there: models and the runtime."""
    from devices import registry
    from devices.errors import DeviceFull
    from devices.shells.lock import DeviceLock
    from devices.shells.store import Store

    with registry.open_shell(registry.find(name)) as shell, Progress() as progress:
        progress(f"clean {name}", 0, 0)
        with contextlib.ExitStack() as held:  # a benchmark that runs there needs what would be removed
            with contextlib.suppress(DeviceFull):  # not even for a lock is there room: nobody holds one
                held.enter_context(DeviceLock(shell))
            freed = Store(shell).clean()
    if json:
        show_json({"name": name, "freed_bytes": freed})
    else:
        show(f"{name}: {freed / 1e6:.1f} MB freed")


@devices_app.command()
@verb
def remove(name: Name, json: options.Json = False) -> None:
    """Forget a named device; nothing on it is touched."""
    from devices import registry

    registry.remove(name)
    if json:
        show_json({"name": name})


def _look(target: Target, hint: str = "") -> Sighting:
    """Reach a device; raises DeviceUnreachable, the hint added, where it does not answer."""
    from devices.check import look
    from devices.errors import DeviceUnreachable

    with Progress() as progress:
        progress(f"reach {target.name}", 0, 0)
        seen = look(target)
    if seen.info is None:
        raise DeviceUnreachable(seen.trouble + hint)
    return seen
