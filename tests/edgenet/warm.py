"""A process that has loaded TensorFlow, and forks the command line for each order: loading is paid for once.

What runs is a process all the same, with its own streams, settings and exit code. Reads orders from stdin, a JSON line
each, and answers each with a line of its exit code. Nothing of ours is loaded before the fork.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def become(order: dict[str, Any]) -> None:
    """Be the process that was ordered, and start."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    for descriptor, path in enumerate((os.devnull, *order["said"])):
        os.dup2(os.open(path, os.O_RDWR), descriptor)
    sys.argv = ["edgenet", *order["arguments"]]
    from edgenet.__main__ import main

    main()


def serve() -> None:
    import keras  # noqa: F401 - brings TensorFlow
    import tensorflow  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if not child:
            become(json.loads(line))  # and leave as main() does
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
