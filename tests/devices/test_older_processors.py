"""int8 in ONNX Runtime on x86 processors with and without VNNI: this machine's own, and a Haswell of 2013 in qemu."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from devices.native.bundle import runner_path
from devices.runtimes.onnx_runtime import is_exact_alone
from devices.runtimes.runtime import TensorInfo, example_input, output_hash

from .test_runner import QUICK, installed
from .tiny_models import heavy_onnx, write

PYTHON = """
import sys
from pathlib import Path
from devices.runtimes import onnx_runtime
from devices.runtimes.runtime import output_hash
if sys.argv[2:]:  # qemu shows programs the /proc/cpuinfo of the processor that it runs on itself
    onnx_runtime.isa_features = lambda: tuple(sys.argv[2:])
session = onnx_runtime.OnnxSession(Path(sys.argv[1]), 1)  # it has run the example
print(output_hash(session.output()))
"""


@pytest.fixture(params=["this machine's", "Haswell"])
def processor(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What a command begins with that shall run on it."""
    installed()
    if request.param != "Haswell":
        return ()
    qemu = shutil.which("qemu-x86_64-static")
    if qemu is None:
        pytest.skip("qemu-x86_64-static is missing: apt-get install qemu-user-static")
    return (qemu, "-cpu", request.param)


@pytest.fixture
def heavy(tmp_path: Path) -> tuple[Path, str]:
    """A file whose sums of two products leave 16 bits, and the hash of what it has to answer."""
    file, weights = heavy_onnx()
    image = example_input(TensorInfo("image", (1, 3, 8, 8), "uint8", 0.0, 0)).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(2, 3))
    sums = np.einsum("nchwij,ocij->nohw", windows, weights.astype(np.int64))
    answer = np.clip(np.rint(sums / 4096), -128, 127) * 4096
    assert len(np.unique(answer)) > 20
    return write(tmp_path, "heavy.onnx", file), output_hash(answer.astype(np.float32))


def test_python_sums_int8_exactly(processor: tuple[str, ...], heavy: tuple[Path, str]) -> None:
    path, expected = heavy
    command = [*processor, sys.executable, "-c", PYTHON, str(path), *(["avx2"] if processor else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == expected


@pytest.mark.parametrize(
    ("machine", "features", "exact"),
    [
        ("x86_64", ("avx2",), False),
        ("AMD64", (), False),
        ("x86_64", ("avx2", "avx512f"), False),
        ("x86_64", ("avx2", "avx_vnni"), True),
        ("x86_64", ("avx2", "avx512f", "avx512_vnni"), True),
        ("aarch64", ("asimddp",), True),
        ("armv7l", (), True),
    ],
)
def test_only_x86_without_vnni_needs_the_setting(machine: str, features: tuple[str, ...], exact: bool) -> None:
    assert is_exact_alone(machine, features) == exact


def test_the_runner_sums_int8_exactly(processor: tuple[str, ...], heavy: tuple[Path, str]) -> None:
    path, expected = heavy
    command = [*processor, str(runner_path("x86_64")), "--engine", "ort", "--lib", installed().libraries["ort"]]
    done = subprocess.run([*command, "--model", str(path), *QUICK], capture_output=True, check=True, timeout=60)
    (model,) = [line for line in map(json.loads, done.stdout.splitlines()) if line["kind"] == "model"]
    assert model["output_hash"] == expected
