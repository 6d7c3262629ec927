"""What doctor finds on this machine, and what it says of machines that lack something."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

import pytest

from devices import doctor
from devices.doctor import Check, examine, opencv
from devices.machine import cpu_model, isa_features, machine_state
from devices.runtimes.probes import PROBES

from .tiny_models import tiny_onnx, tiny_tflite, write

VERBS = {"convert", "quantize", "verify", "evaluate", "bench", "demo", "train", "camera"}


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def fake_wheel(folder: Path, name: str, version: str) -> None:
    """Lay down what pip would: the metadata of an installed distribution."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    write(info, "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode())


def test_this_machine_runs_both_kinds() -> None:
    checks = by_name(examine())
    assert checks["LiteRT"].ok
    assert checks["LiteRT"].found.split()[1] == metadata.version("ai-edge-litert")
    assert checks["TFLite delegate"] == Check("TFLite delegate", True, "XNNPACK", ("bench",), "")
    assert metadata.version("onnxruntime") in checks["ONNX Runtime"].found
    assert checks["Python"].ok
    assert all(set(check.needed_for) <= VERBS for check in checks.values())
    assert all(not check.fix for check in checks.values() if check.ok)
    assert all(check.found for check in checks.values())


def test_what_reaches_boards_and_phones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ssh", "adb"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = by_name(examine())
    assert checks["ssh"] == Check("ssh", True, str(tmp_path / "ssh"), ("bench",), "")
    assert checks["adb"] == Check("adb", True, str(tmp_path / "adb"), ("bench", "camera"), "")
    for name in ("ssh", "adb"):
        (tmp_path / name).unlink()
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    checks = by_name(examine())
    assert (checks["ssh"].ok, checks["ssh"].fix) == (False, "install the OpenSSH client")
    assert (checks["adb"].ok, checks["adb"].found) == (False, "not installed")
    assert checks["adb"].fix.startswith("apt install adb")


def test_a_runtime_that_imports_and_then_fails_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "ai_edge_litert.py", b"raise ImportError('GLIBC_2.34 not found')")
    write(tmp_path, "tflite_runtime.py", b"raise ImportError('no such module')")
    broken = b"__version__ = '9'\nclass GraphOptimizationLevel: ORT_ENABLE_ALL = 9\nclass SessionOptions: pass\n"
    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    write(tmp_path / "onnxruntime", "__init__.py", broken)
    write(tmp_path / "onnxruntime" / "capi", "onnxruntime_pybind11_state.py", b"import os; os.abort()")
    monkeypatch.syspath_prepend(tmp_path)
    checks = by_name(examine())
    assert not checks["LiteRT"].ok
    assert "GLIBC_2.34 not found" in checks["LiteRT"].found
    assert checks["LiteRT"].fix == 'pip install "edgenet[device]"'
    assert "bench" in checks["LiteRT"].needed_for
    assert "TFLite delegate" not in checks
    assert not checks["ONNX Runtime"].ok
    assert "died of SIGABRT" in checks["ONNX Runtime"].found
    assert checks["ONNX Runtime"].fix == 'pip install "edgenet[device]"'


def test_a_runtime_that_answers_wrongly_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "BLUE", 0)
    found = by_name(examine())
    for name in ("LiteRT", "ONNX Runtime"):
        assert not found[name].ok
        assert found[name].found.endswith("answers wrongly to a tiny model")


@pytest.mark.parametrize("exact", [False, True])
def test_where_onnx_runtimes_int8_is_not_exact_by_itself_it_says_so(
    monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    monkeypatch.setattr(doctor, "is_exact_alone_here", lambda: exact)
    assert ("session.x64quantprecision=1" in doctor._processor().found) == (not exact)


def test_a_version_that_edgenet_is_not_made_for_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in {"h5py": "3.2.1", "tensorflow": "2.15.0", "onnxruntime": "1.17", "keras": "3.14"}.items():
        fake_wheel(tmp_path, name, version)
    monkeypatch.syspath_prepend(tmp_path)
    checks = by_name(examine())
    assert checks["keras"] == Check("keras", True, "keras 3.14", checks["keras"].needed_for, "")
    for name, found, fix in (
        ("h5py", "h5py 3.2.1: edgenet is made for h5py >=3.", "convert"),
        ("tensorflow", "tensorflow 2.15.0: edgenet is made for tensorflow", "convert"),
        ("ONNX Runtime", ": edgenet is made for onnxruntime <2,>=1.", "device"),
    ):
        assert found in checks[name].found
        assert (checks[name].ok, checks[name].fix) == (False, f'pip install "edgenet[{fix}]"')


def test_two_opencv_wheels_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("opencv-python", "opencv-contrib-python"):
        fake_wheel(tmp_path, name, "5.0.0.93")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    check = by_name(examine())["OpenCV"]
    assert not check.ok
    assert "opencv-python 5.0.0.93" in check.found
    assert check.fix.startswith("pip uninstall -y opencv-python ")
    assert check.fix.endswith('opencv-contrib-python && pip install "edgenet[camera-headless]"')


def test_an_opencv_that_does_not_load_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cv2").mkdir()
    write(tmp_path / "cv2", "__init__.py", b"raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    check = by_name(examine())["OpenCV"]
    (wheel,) = (name for name in ("opencv-python", "opencv-python-headless") if doctor._version(name))
    assert not check.ok
    assert check.found.startswith(f"{wheel} ")
    assert check.found.endswith(" does not load: ImportError: libGL.so.1: cannot open shared object file")
    assert check.fix == f'pip uninstall -y {wheel} && pip install "edgenet[camera-headless]"'


def test_what_the_camera_needs_is_looked_for_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {"OpenCV", "starlette", "uvicorn", "websockets"}
    checks = by_name(examine())
    assert needed <= {name for name, check in checks.items() if check.ok and check.needed_for == ("camera",)}
    assert "camera" in checks["LiteRT"].needed_for
    monkeypatch.setattr("devices.doctor._version", lambda name: "")
    monkeypatch.setenv("DISPLAY", ":0")
    assert opencv().found == "the system's own"
    monkeypatch.setitem(sys.modules, "cv2", None)  # not installed at all
    checks = by_name(examine())
    for name in needed:
        wanted = Check(name, False, "not installed", ("camera",), 'pip install "edgenet[camera]"')
        assert checks[name] == wanted


def test_probes_are_what_the_builders_write() -> None:
    assert PROBES[".tflite"] == tiny_tflite()
    assert PROBES[".onnx"] == tiny_onnx()


def test_a_pi_is_read_from_its_files(tmp_path: Path) -> None:
    for name, text in {
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd fphp asimdhp asimddp\nCPU part\t: 0xd0b\n",
        "sys/class/thermal/thermal_zone0/temp": "48000\n",
        "sys/class/thermal/thermal_zone1/temp": "51500\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "cpufreq-dt\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path, name, text.encode())
    assert cpu_model(tmp_path) == "Raspberry Pi 5 Model B Rev 1.0"
    assert isa_features(tmp_path) == ("asimddp", "fphp", "asimdhp")
    state = machine_state(tmp_path)
    assert (state.governor, state.clock_driver, state.frequency_khz) == ("ondemand", "cpufreq-dt", 2_400_000)
    assert state.temperature_c == 51.5


def test_a_machine_without_such_files(tmp_path: Path) -> None:
    state = machine_state(tmp_path)
    assert (state.governor, state.clock_driver, state.frequency_khz, state.temperature_c) == (None, None, None, None)
    assert isa_features(tmp_path) == ()
    assert cpu_model(tmp_path)
