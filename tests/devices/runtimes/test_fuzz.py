"""300 broken model files: none kills or hangs us; each runs, or ends in one DeviceError line within its timeout."""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from devices.errors import DeviceError, ModelTimeout
from devices.runtimes.model_process import ModelProcess
from tests.devices.tiny_models import tiny_onnx, tiny_tflite, with_labels, write

EACH = 150
TIMEOUT_S = 10.0


def mutate(data: bytes, rng: np.random.Generator, donor: bytes) -> bytes:
    """Flip bits, cut the end off, splice another file in, zero a block, or fill a word with ones."""
    broken = bytearray(data)
    kind = rng.integers(5)
    start = int(rng.integers(8, len(data)))  # the identifier stays, or no runtime would ever see the file
    length = int(rng.integers(1, max(2, len(data) // 8)))
    if kind == 0:
        for place in rng.integers(8, len(data), rng.integers(1, 9)):
            broken[place] ^= 1 << rng.integers(8)
    elif kind == 1:
        del broken[start:]
    elif kind == 2:
        other = int(rng.integers(0, len(donor)))
        broken[start : start + length] = donor[other : other + length]
    elif kind == 3:
        broken[start : start + length] = bytes(len(broken[start : start + length]))
    else:
        broken[start : start + 4] = b"\xff\xff\xff\x7f"
    return bytes(broken)


def wide_onnx() -> bytes:
    """Write a file that is mostly weights, as real ones are."""
    from onnx import helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)
    return tiny_onnx(
        extra=[helper.make_node("MatMul", ["s", "w"], ["wide"]), helper.make_node("MatMul", ["wide", "v"], ["narrow"])],
        tensors=[numpy_helper.from_array(weights, "w"), numpy_helper.from_array(weights.T.copy(), "v")],
        scores="narrow",
    )


def outcome(path: Path) -> tuple[str, float]:
    """Open and run one file: how it ended, and after how many seconds."""
    start = time.monotonic()
    said = path.name
    try:
        with ModelProcess(path, timeout_s=TIMEOUT_S) as process:
            tensor = process.info.inputs[0]
            scores = process.run(np.zeros((2, *tensor.shape[1:]), tensor.dtype))
            assert scores.dtype == np.float32
            assert len(scores) == 2
            end = "ran"
    except DeviceError as exc:
        end, said = type(exc).__name__, str(exc)
    assert path.name in said
    assert "\n" not in said
    assert len(said) < 600
    return end, time.monotonic() - start


def test_300_broken_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(20260101)
    tflite = [tiny_tflite(), tiny_tflite(int8=True), with_labels(tiny_tflite(), b"red\ngreen\nblue\n")]
    root = os.environ.get("EDGENET_TEST_DATA")
    if root:
        tflite.append((Path(root) / "foreign" / "mobilenet_v1_0.25_128_quant.tflite").read_bytes())
    seeds = {".tflite": tflite, ".onnx": [tiny_onnx(), wide_onnx(), wide_onnx()]}
    paths = [
        write(tmp_path, f"{n}{suffix}", mutate(kinds[n % len(kinds)], rng, kinds[(n + 1) % len(kinds)]))
        for suffix, kinds in seeds.items()
        for n in range(EACH)
    ]
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(outcome, paths))
    for suffix in seeds:
        counts = Counter(end for path, (end, _) in zip(paths, ends, strict=True) if path.suffix == suffix)
        print(suffix, dict(counts))  # pytest -s shows it
        assert counts["ran"] >= 10  # or the mutations would be too coarse to reach any kernel
        assert counts["ModelUnreadable"] >= 10
        assert sum(counts.values()) == EACH
    slow = max(seconds for end, seconds in ends if end != ModelTimeout.__name__)
    assert slow < TIMEOUT_S + 5
    assert all(seconds < TIMEOUT_S + 5 for _, seconds in ends)
