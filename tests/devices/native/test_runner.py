"""The native runner through a Shell on this machine: what the Python runtimes say, and one line for what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from devices.errors import (
    DeviceError,
    DeviceUnfit,
    ModelCrashed,
    ModelTimeout,
    ModelUnreadable,
    RuntimeMissing,
)
from devices.native import place as place_module
from devices.native.runner import ENGINES, Place, local_place, native_measure, native_profile, require_64_bit
from devices.runtimes.model_process import ModelProcess
from devices.runtimes.timing import Schedule
from devices.shells.local import LocalShell
from tests.devices.tiny_models import endless_onnx, tiny_onnx, tiny_tflite, write

QUICK = Schedule(warmup_s=0, warmup_runs=1, duration_s=0, min_runs=5, cap_s=2, repetitions=1)


@pytest.fixture(scope="session")
def here() -> Place:
    try:
        place = local_place()
    except RuntimeMissing as exc:
        pytest.skip(str(exc))
    for engine in ENGINES.values():
        if engine not in place.libraries:
            pytest.skip(f"the Python package of {engine} is not installed here")
    return place


@pytest.fixture
def shell(tmp_path: Path) -> LocalShell:
    return LocalShell(tmp_path / "device")


@pytest.mark.parametrize("name", ["a.tflite", "a.onnx"])
def test_a_run_is_what_the_python_runtime_would_call_one(
    tmp_path: Path, here: Place, shell: LocalShell, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for variable in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(home))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    path = write(tmp_path, name, tiny_tflite() if name == "a.tflite" else tiny_onnx())
    engine = ENGINES[path.suffix]
    native = native_measure(shell, here, str(path), engine, 1, QUICK)
    with ModelProcess(path) as process:
        info, run = process.info, process.measure(QUICK)
    assert not list(home.rglob("*")), (
        "ONNX Runtime makes an identifier of the machine there, by which it reports to Microsoft"
    )
    assert native.run.output_hash == run.output_hash
    assert native.runtime == info.runtime  # with its version
    assert native.delegate == info.delegate
    assert native.run.warmup_runs == run.warmup_runs == QUICK.warmup_runs + 1  # one more after the state was read
    assert native.run.samples_ns.dtype == np.int64
    assert len(native.run.samples_ns) >= 5
    assert native.run.samples_ns.min() > 0
    assert 0 < native.run.load_ms < 5000
    assert 0 < native.run.first_ms < 1000
    assert native.run.peak_rss_bytes < run.peak_rss_bytes  # no Python in it
    assert native.states[1:] == (native.run.warm, native.run.end)
    assert native.run.warm.load_1m is not None
    operators = native_profile(shell, here, str(path), engine, 1, QUICK)
    assert len(operators) >= 3
    assert all(one.runs >= 5 and one.name and one.us >= 0 for one in operators)


def test_many_samples_arrive_whole_and_in_order(tmp_path: Path, here: Place, shell: LocalShell) -> None:
    path = write(tmp_path, "a.tflite", tiny_tflite())
    many = replace(QUICK, min_runs=10_000, cap_s=10)
    assert len(native_measure(shell, here, str(path), "litert", 1, many).run.samples_ns) == 10_000


def test_a_models_name_reaches_no_shell_and_no_option(tmp_path: Path, here: Place, shell: LocalShell) -> None:
    for name in ("a b'\"$(touch owned)`touch owned`;touch owned&.tflite", "--profile.tflite", "-\n\u00e9.tflite"):
        path = write(tmp_path, name, tiny_tflite())
        assert len(native_measure(shell, here, str(path), "litert", 1, QUICK).run.samples_ns) >= 5
    assert not list(tmp_path.rglob("owned"))


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("a.tflite", b"", ModelUnreadable, "LiteRT refuses it"),
        ("a.onnx", tiny_onnx()[:100], ModelUnreadable, "ONNX Runtime 1"),
        ("a.onnx", tiny_onnx(size="n"), ModelUnreadable, "export it with a fixed size"),
        ("a.tflite", tiny_tflite(beside="segfaults"), ModelCrashed, "died of SIGSEGV on local"),
        ("a.tflite", tiny_tflite(beside="aborts"), ModelCrashed, "died of SIGABRT on local"),
        ("a.onnx", endless_onnx(), ModelTimeout, "no answer in 0.8 s on local"),
    ],
)
def test_a_broken_model_is_one_clear_error(
    tmp_path: Path, here: Place, shell: LocalShell, name: str, content: bytes, error: type[DeviceError], said: str
) -> None:
    path = write(tmp_path, name, content)
    short = replace(QUICK, cap_s=0.15)
    with pytest.raises(error) as caught:
        native_measure(shell, here, str(path), ENGINES[path.suffix], 1, short, timeout_s=0.5, name="mine")
    message = str(caught.value)
    assert message.startswith("mine: ")
    assert said in message
    assert "\n" not in message
    assert len(message) < 400


def test_what_is_missing_is_said(tmp_path: Path, here: Place, shell: LocalShell) -> None:
    path = write(tmp_path, "a.tflite", tiny_tflite())

    def measure(place: Place, model: str = str(path), cpus: str | None = None) -> None:
        native_measure(shell, place, model, "litert", 1, QUICK, cpus=cpus)

    with pytest.raises(ModelUnreadable, match="there is no such file on the device"):
        measure(here, str(tmp_path / "missing.tflite"))
    with pytest.raises(RuntimeMissing, match="LiteRT cannot be opened"):
        measure(replace(here, libraries={"litert": "/nowhere/libLiteRt.so"}))
    with pytest.raises(RuntimeMissing, match=r"LiteRT is not installed here: pip install \"edgenet\[device\]\""):
        measure(replace(here, libraries={}))
    with pytest.raises(DeviceUnfit, match="cannot be confined to the processors 1023"):
        measure(here, cpus="1023")
    with pytest.raises(DeviceUnfit, match=r"the native runner does not start on local: .*nowhere/runner"):
        measure(replace(here, command=("/nowhere/runner",)))


def test_what_androids_shell_preloads_is_left_out(shell: LocalShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "libc.so.6")
    answer = '{"kind":"error","cause":"device","message":"<%s>"}\\n'
    place = Place(("sh", "-c", f"printf '{answer}' \"$LD_PRELOAD\"; exit 2", "sh"), {"litert": "lib"}, {})
    with pytest.raises(DeviceUnfit, match=r"m: <>$"):
        native_measure(shell, place, "m", "litert", 1, QUICK)


def test_a_runner_whose_executable_bit_was_lost_gets_it_back(
    tmp_path: Path, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "runner"
    copy.write_bytes(Path(here.command[0]).read_bytes())
    copy.chmod(0o644)
    monkeypatch.setattr(place_module, "runner_path", lambda arch: copy)
    assert local_place().command == (str(copy),)
    assert copy.stat().st_mode & 0o111 == 0o111


@pytest.mark.parametrize(
    ("arch", "bits", "said"),
    [
        ("armv7l", 32, r"pi runs a 32-bit system \(armv7l\).*install the 64-bit OS"),
        ("armv8l", None, r"pi runs a 32-bit system \(armv8l\)"),
        ("aarch64", 32, r"pi runs a 32-bit system \(aarch64, 32-bit programs\).*install the 64-bit OS"),
        ("i686", 32, "32-bit"),
        ("riscv64", 64, "pi is riscv64: LiteRT and ONNX Runtime exist for aarch64 and x86_64"),
        ("aarch64", 64, ""),
        ("aarch64", None, ""),
        ("arm64", 64, ""),
        ("x86_64", 64, ""),
    ],
)
def test_what_has_no_64_bit_system_is_told_what_to_install(arch: str, bits: int | None, said: str) -> None:
    if not said:
        require_64_bit("pi", arch, bits)
        return
    with pytest.raises(DeviceUnfit, match=said):
        require_64_bit("pi", arch, bits)
