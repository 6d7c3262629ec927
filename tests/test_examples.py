"""Every example runs, and says what it promises."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_examples(tmp_path: Path) -> None:
    said = run("convert_and_verify.py", tmp_path, "plain")
    assert "passed True" in said
    picture = sorted((tmp_path / "images" / "heart").iterdir())[0]
    best = run("run_on_a_pi.py", tmp_path / "symbols_int8.tflite", picture).splitlines()[0]
    assert best.endswith("heart")
    manifest = tmp_path / "symbols_int8.tflite.json"
    known = json.loads(manifest.read_text())
    which = known["output"]["labels"].index("heart")
    shutil.copy(tmp_path / "symbols_int8.tflite", tmp_path / "nameless.tflite")
    nameless = {**known, "output": {**known["output"], "labels": []}}
    (tmp_path / "nameless.tflite.json").write_text(json.dumps(nameless))
    assert run("run_on_a_pi.py", tmp_path / "nameless.tflite", picture).splitlines()[0].endswith(f"class {which}")
    timed = run("time_on_a_board.py", "local", tmp_path / "symbols_int8.tflite")
    assert "symbols_int8.tflite on local: " in timed


def test_examples_are_short_and_each_is_run_here() -> None:
    files = list(EXAMPLES.glob("*.py"))
    assert {file.name for file in files} == {"convert_and_verify.py", "run_on_a_pi.py", "time_on_a_board.py"}
    assert all(len(file.read_text().splitlines()) <= 80 for file in files)
