"""A process that has loaded the large libraries, and forks the command line for each order: loading is paid for once.

What runs is a process all the same, with its own streams, settings and exit code. Reads orders from stdin, a JSON line
each, and answers each with a line of its exit code. Nothing of ours is loaded before the fork.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import sys
import threading
from typing import Any

from .command_line import BRIEF


def become(order: dict[str, Any]) -> None:
    """Be the process that was ordered, and start."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    for descriptor, path in enumerate((os.devnull, *order["said"])):
        os.dup2(os.open(path, os.O_RDWR), descriptor)
    sys.argv = ["edgenet", *order["arguments"]]
    if order["arguments"][0] in ("evaluate", "quantize", "verify"):
        from devices import machine

        machine.cores = lambda: 1  # the others are busy with other tests; the demo has them all
    if order["arguments"][0] in ("demo", "quantize"):
        from devices.runtimes.timing import Schedule
        from edgenet.int8 import trial

        trial.QUICK = Schedule(warmup_s=0, duration_s=0.05, min_runs=5, repetitions=1)  # of files that are tried
    try:
        exec(BRIEF)
    except SystemExit as exit_:
        leave(exit_.code)


def leave(code: Any) -> None:
    """Leave as the interpreter does, but for taking all libraries apart, which costs more than most verbs."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code or 0)


def serve() -> None:
    import ai_edge_quantizer.quantizer  # noqa: F401
    import keras  # noqa: F401 - brings TensorFlow
    import onnx  # noqa: F401
    import tensorflow  # noqa: F401
    import typer  # noqa: F401

    gc.freeze()  # what a collection looks at, a fork has to copy
    for line in sys.stdin:
        child = os.fork()
        if not child:
            become(json.loads(line))  # and leave as main() does
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
