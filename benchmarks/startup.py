"""What `edgenet --help` costs beside the help of a bare typer app, whole processes in turn.

python benchmarks/startup.py [--runs 20]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np

GOAL = 1.5
BARE = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"


def seconds(command: list[str]) -> float:
    """Run a command; measure its wall time."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> int:
    """Print both medians and their ratio; exit 1 if it is above the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    bare, ours = [sys.executable, "-c", BARE], [sys.executable, "-m", "edgenet", "--help"]
    seconds(bare), seconds(ours)
    pairs = np.array([(seconds(bare), seconds(ours)) for _ in range(runs)])
    ratio = float(np.median(pairs[:, 1] / pairs[:, 0]))
    a, b = np.median(pairs, axis=0) * 1e3
    print(f"bare typer {a:.0f} ms, edgenet --help {b:.0f} ms, ratio {ratio:.2f} (goal <= {GOAL})")
    return int(ratio > GOAL)


if __name__ == "__main__":
    sys.exit(main())
