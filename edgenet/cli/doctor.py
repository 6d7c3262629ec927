"""edgenet doctor: what this machine has, what is missing for which verb, and the command that installs it."""

from __future__ import annotations

from edgenet.cli import options
from edgenet.cli.terminal import Progress, show, show_json, verb


@verb
def doctor(json: options.Json = False) -> None:
    """Check runtimes, delegates, versions and conflicts; say what is missing for which verb, and how to install it."""
    from devices.doctor import examine
    from edgenet.reports import devices as report

    with Progress() as progress:
        progress("try each runtime", 0, 0)
        checks = examine()
    if json:
        show_json(list(checks))
    else:
        show(report.doctor_table(checks))
