"""Who makes the int8 files of benchmarks/int8.py: each method in a process of its own, its time and memory taken."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from int8_rows import Goals, Row

from edgenet.labels import Labels

HERE = Path(__file__).parent
FRAME = " \t│╭╮╰╯─"  # what a command line draws around its errors
STOCK = "stock TFLite"

METHODS = {
    "stock-tflite": (STOCK, "tflite"),
    "stock-ort": ("stock ONNX Runtime", "onnx"),
    "nncf": ("NNCF", "onnx"),
    "nncf-accurate": ("NNCF, accurate bias", "onnx"),
    "aeq": ("ai-edge-quantizer", "tflite"),
    "plain": ("edgenet plain", ""),
    "fast": ("edgenet fast", ""),
    "best": ("edgenet best", ""),
}
"""Method -> its title and the format of its file; "": one file of each."""

# The float graph that a tool starts from, where it does not start from Keras.
GRAPHS = {"stock-ort": "float-onnx", "nncf": "float-onnx", "nncf-accurate": "float-onnx", "aeq": "float-tflite"}

NO_NNCF = (
    "not installed; it wants an environment of its own: python3 -m venv nncf; "
    "nncf/bin/pip install nncf onnx onnxruntime numpy; then --nncf-python nncf/bin/python"
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A network with real weights, and pictures for it.

    Attributes:
        title: what the table calls it.
        network: what edgenet calls it.
        weights: file.
        calibration: folder of pictures.
        validation: folder of class folders.
        labels: what its classes are called.
        goals: what edgenet's files must reach.
    """

    title: str
    network: str
    weights: Path
    calibration: Path
    validation: Path
    labels: Labels
    goals: Goals


@dataclass(frozen=True, slots=True)
class Made:
    """A row begun, and its file; None where there is none."""

    row: Row
    path: Path | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process cost, and its last words where it failed ("" where it did not)."""

    seconds: float
    peak_mb: float
    failure: str


def run(command: Sequence[str | os.PathLike[str]], log: Path | None) -> Cost:
    """Run a command; what it prints goes to a file, or to our stderr.

    The peak is that of the largest process in its tree. It is never below our own, which a child inherits at its start:
    so nothing large is imported here, and images are scored a few at a time.
    """
    began = time.perf_counter()
    with (log or Path(os.devnull)).open("wb") as sink:
        out = sink if log else sys.stderr
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    failure = _last_words(log, process.returncode) if process.returncode else ""
    return Cost(time.perf_counter() - began, usage.ru_maxrss / unit, failure)


class Makers:
    """Makes the files of one network in a folder."""

    def __init__(self, subject: Subject, folder: Path, nncf_python: Path | None) -> None:
        self._subject = subject
        self._folder = folder
        self._nncf = nncf_python
        self._graphs: dict[str, Cost] = {}

    def reference(self, files: Sequence[Path]) -> np.ndarray:
        """Return the float Keras network's probabilities for pictures, float32 [images, classes]."""
        pictures, out = self._folder / "pictures.txt", self._folder / "reference.npy"
        pictures.write_text("\n".join(map(str, files)), encoding="utf-8")
        cost = self._child("reference", pictures, out)
        if cost.failure:
            sys.exit(f"{self._subject.title}: the float network does not answer: {cost.failure}")
        answers: np.ndarray = np.load(out)
        return answers

    def make(self, method: str) -> list[Made]:
        """Make what one method makes, or say in the row why there is nothing."""
        title, format_ = METHODS[method]
        if not format_:
            return self._edgenet(method)
        begun, path = Row(self._subject.title, title, format_), self._folder / f"{method}.{format_}"
        if method.startswith("nncf") and self._nncf is None:
            return [_made(begun, Cost(0, 0, NO_NNCF), path)]
        first = self._graph(GRAPHS.get(method, ""))
        if first.failure:
            return [_made(begun, first, path)]
        then = self._tool(method, path)
        both = Cost(first.seconds + then.seconds, max(first.peak_mb, then.peak_mb), then.failure)
        return [_made(begun, both, path)]

    def _graph(self, kind: str) -> Cost:
        """Make a float graph, once; its cost is part of every method's that starts from it."""
        if not kind:
            return Cost(0, 0, "")
        if kind not in self._graphs:
            self._graphs[kind] = self._child(kind, self._subject.calibration, self._graph_path(kind))
        return self._graphs[kind]

    def _graph_path(self, kind: str) -> Path:
        return self._folder / f"float.{kind.removeprefix('float-')}"

    def _tool(self, method: str, out: Path) -> Cost:
        graph = self._graph_path(GRAPHS[method]) if method in GRAPHS else None
        if not method.startswith("nncf"):
            return self._child(method, self._subject.calibration, out, graph)
        assert self._nncf is not None  # asked before
        assert graph is not None
        accurate = ["--accurate"] if method == "nncf-accurate" else []
        command: list[str | os.PathLike[str]] = [
            self._nncf,
            HERE / "int8_nncf.py",
            graph,
            graph.with_suffix(".npy"),
            out,
            *accurate,
        ]
        return run(command, out.with_suffix(".log"))

    def _child(self, maker: str, pictures: Path, out: Path, graph: Path | None = None) -> Cost:
        subject = self._subject
        script = HERE / "int8_baselines.py"
        given = ("--graph", graph) if graph else ()
        command = (sys.executable, script, maker, subject.network, subject.weights, pictures, out, *given)
        return run(command, self._folder / f"{maker}.log")

    def _edgenet(self, effort: str) -> list[Made]:
        """Make both files in one run, as a user does."""
        subject, folder = self._subject, self._folder / effort
        verb = (sys.executable, "-m", "edgenet", "quantize", subject.network, "--weights", subject.weights)
        how = ("--calibration", subject.calibration, "--effort", effort, "--to", "tflite", "--to", "onnx")
        cost = run((*verb, *how, "-o", folder), self._folder / f"{effort}.log")
        return [
            _made(Row(subject.title, METHODS[effort][0], format_), cost, folder / f"{subject.network}_int8.{format_}")
            for format_ in ("tflite", "onnx")
        ]


def _made(row: Row, cost: Cost, path: Path) -> Made:
    if cost.failure:
        return Made(dataclasses.replace(row, failure=cost.failure), None)
    return Made(dataclasses.replace(row, seconds=cost.seconds, peak_mb=cost.peak_mb), path)


def _last_words(log: Path | None, code: int) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log else []
    said = [text for line in lines if (text := line.strip(FRAME))]
    return said[-1][:200] if said else f"ended with status {code}"
