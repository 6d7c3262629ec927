"""What a user's own program must ask of ONNX Runtime on this machine; edgenet's verbs do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgenet.cli.terminal import warn


def warn_where_int8_needs_it(files: Iterable[tuple[Path, str]]) -> None:
    """Say so where a processor without VNNI is to run one of these files, each with its precision."""
    from devices.runtimes.onnx_runtime import EXACT, is_exact_alone_here

    int8 = any(path.suffix == ".onnx" and precision == "int8" for path, precision in files)  # dynamic is float kernels
    if int8 and not is_exact_alone_here():
        warn(
            "no VNNI is known of on this processor: ONNX Runtime's int8 is right here only in sessions with "
            f'add_session_config_entry("{EXACT[0]}", "{EXACT[1]}"), which edgenet sets; do so in your own program, too'
        )
