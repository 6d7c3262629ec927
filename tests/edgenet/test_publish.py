"""A model file and its manifest appear together, whoever else writes the same names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RACE = """
import multiprocessing, sys
from dataclasses import replace
from pathlib import Path
from devices.model_file import sha256
from edgenet import artifact, publish
from edgenet.camera.classifier import default_model

out, known = Path(sys.argv[1]), artifact.load(default_model()).manifest
publish._proven = lambda partial, path, manifest: replace(manifest, sha256=sha256(partial))
fork = multiprocessing.get_context("fork")

def write(content, together):
    together.wait()
    publish.publish(content, known, out)

for _ in range(40):
    together = fork.Barrier(2)
    both = [fork.Process(target=write, args=(letter * 300_000, together)) for letter in (b"A", b"B")]
    for one in both: one.start()
    for one in both: one.join()
    made = artifact.load(out / f"{known.name}_{known.precision}.{known.format}")
    assert made is not None
"""


def test_two_at_once_leave_one_file_with_its_own_manifest(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", RACE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(list(tmp_path.iterdir())) == 2
