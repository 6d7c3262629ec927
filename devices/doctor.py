"""What this machine has for running and making model files, and the command that supplies what it lacks."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from devices.device import OWN_GOVERNORS
from devices.errors import DeviceError, RuntimeMissing
from devices.machine import INT8_FEATURES, cpu_model, isa_features, machine_state
from devices.runtimes.model_file import one_line
from devices.runtimes.model_process import ModelProcess
from devices.runtimes.onnx_runtime import EXACT, is_exact_alone_here
from devices.runtimes.probes import BLUE, PROBES, probe_input
from devices.runtimes.runtime import ModelInfo
from devices.shells.adb import find_adb

_RUN = ("convert", "quantize", "verify", "evaluate", "bench", "demo", "camera")  # verbs that open a model file
_KERAS = ("convert", "quantize", "verify", "demo", "train")  # verbs that always build or load a Keras model
_CONVERT = 'pip install "edgenet[convert]"'
_DEVICE = 'pip install "edgenet[device]"'

# distribution (any of), verbs that need it, the command that installs it
_MAKERS = (
    (("tensorflow", "tensorflow-cpu"), _KERAS, _CONVERT),
    (("keras",), _KERAS, _CONVERT),
    (("onnx",), ("convert", "quantize", "demo"), _CONVERT),
    (("tf2onnx",), ("convert", "quantize"), _CONVERT),
    (("ai-edge-quantizer",), ("quantize", "demo"), _CONVERT),
    (("h5py",), _KERAS, _CONVERT),
    (("flatbuffers",), ("convert", "quantize", "demo"), _CONVERT),
)
_PAGE = ("starlette", "uvicorn", "websockets")  # what serves the camera's page
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked for; fix is the command that supplies it, "" where there is none or it is fine."""

    name: str
    ok: bool
    found: str
    needed_for: tuple[str, ...]  # verbs
    fix: str


def examine(timeout_s: float = 60.0) -> tuple[Check, ...]:
    """Examine this machine; each runtime proves itself by a real inference in a child process.

    timeout_s: for each runtime. Imports neither TensorFlow nor ONNX.
    """
    litert, info = _runtime("LiteRT", ".tflite", timeout_s)
    onnx, _ = _runtime("ONNX Runtime", ".onnx", timeout_s)
    litert, onnx = _fitting(litert, ("ai-edge-litert",), _DEVICE), _fitting(onnx, ("onnxruntime",), _DEVICE)
    checks = [_python(), litert]
    if info is not None:
        checks.append(_delegate(info))
    checks.append(onnx)
    checks += [_distribution(names, verbs, fix) for names, verbs, fix in _MAKERS]
    checks.append(_loaded(opencv(), timeout_s))
    checks += [_distribution((name,), ("camera",), _camera()) for name in _PAGE]
    checks += [_ssh(), _adb()]
    checks.append(_processor())
    state = machine_state()
    if state.governor is not None:
        checks.append(_governor(state.governor, state.clock_driver or ""))
    return tuple(checks)


def _python() -> Check:
    version = platform.python_version()
    ok = (3, 10) <= sys.version_info[:2] <= (3, 13)
    found = f"{version} on {platform.system()} {platform.machine()}"
    return Check("Python", ok, found, (*_RUN, "train"), "" if ok else "install Python 3.10 to 3.13")


def _runtime(name: str, suffix: str, timeout_s: float) -> tuple[Check, ModelInfo | None]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"probe{suffix}"
        path.write_bytes(PROBES[suffix])
        try:
            with ModelProcess(path, timeout_s=timeout_s) as process:
                answer = int(process.run(probe_input())[0].argmax())
                info = process.info
        except RuntimeMissing as exc:
            reason, _, fix = str(exc).removeprefix(f"{path}: ").rpartition(": ")
            return Check(name, False, reason, _RUN, fix), None
        except DeviceError as exc:
            reason = str(exc).replace(f"{path}: ", "")
            return Check(name, False, f"a tiny model fails: {reason}", _RUN, _DEVICE), None
    if answer != BLUE:
        return Check(name, False, f"{info.runtime} answers wrongly to a tiny model", _RUN, _DEVICE), info
    return Check(name, True, info.runtime, _RUN, ""), info


def _delegate(info: ModelInfo) -> Check:
    ok = info.delegate == "XNNPACK"
    found = info.delegate if ok else f"{info.delegate}: inference runs, but slower {info.delegate_note}".rstrip()
    return Check("TFLite delegate", ok, found, ("bench",), "" if ok else _DEVICE)


def _distribution(names: tuple[str, ...], verbs: tuple[str, ...], fix: str) -> Check:
    for name in names:
        version = _version(name)
        if version:
            return _fitting(Check(names[0], True, f"{name} {version}", verbs, ""), names, fix)
    return Check(names[0], False, "not installed", verbs, fix)


def _fitting(check: Check, names: tuple[str, ...], fix: str) -> Check:
    """Tell of a version that edgenet is not made for; names: distributions, any of which serves."""
    installed = next((version for name in names if (version := _version(name))), "")
    wanted = next((text for name in names if (text := _wanted(name, installed))), "") if installed else ""
    if not check.ok or not wanted:
        return check
    return replace(check, ok=False, found=f"{check.found}: edgenet is made for {wanted}", fix=fix)


def _wanted(name: str, version: str) -> str:
    """Give the versions of a distribution that edgenet asks for, "" where this one is among them, or nobody knows."""
    try:
        from packaging.requirements import Requirement  # it comes with ONNX Runtime, and with Keras

        edgenet = metadata.metadata("edgenet")
    except (ImportError, metadata.PackageNotFoundError):
        return ""
    extras = ["", *(edgenet.get_all("Provides-Extra") or ())]
    for one in map(Requirement, edgenet.get_all("Requires-Dist") or ()):
        here = one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)
        if one.name == name and here and not one.specifier.contains(version, prereleases=True):
            return f"{name} {one.specifier}"
    return ""


def opencv() -> Check:
    """Look for OpenCV: one of its wheels, or the system's own; two wheels overwrite each other's files."""
    wheels = _opencv_wheels()
    if len(wheels) < 2:
        ok = bool(wheels) or importlib.util.find_spec("cv2") is not None
        found = wheels[0] if wheels else "the system's own" if ok else "not installed"
        return Check("OpenCV", ok, found, ("camera",), "" if ok else _camera())
    names = " ".join(wheel.split()[0] for wheel in wheels)
    fix = f"pip uninstall -y {names} && {_camera()}"
    return Check("OpenCV", False, f"{', '.join(wheels)}: they overwrite each other's files", ("camera",), fix)


def opencv_cure() -> str:
    """Say what replaces an OpenCV that is installed and does not load: one with windows needs libGL, headless none."""
    names = [wheel.split()[0] for wheel in _opencv_wheels()]
    return (f"pip uninstall -y {' '.join(names)} && " if names else "") + 'pip install "edgenet[camera-headless]"'


def _loaded(found: Check, timeout_s: float) -> Check:
    """Try whether the OpenCV that was found loads, in a child process."""
    if not found.ok:
        return found
    command = [sys.executable, "-c", "import cv2"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        why = f"not within {timeout_s:g} s"
    else:
        if done.returncode == 0:
            return found
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = one_line(said[-1]) if said else f"its process ends with {done.returncode}"
    return Check(found.name, False, f"{found.found} does not load: {why}", found.needed_for, opencv_cure())


def _opencv_wheels() -> list[str]:
    return [f"{name} {version}" for name in _OPENCV if (version := _version(name))]


def _camera() -> str:
    """Say what installs the camera's packages: windows are for whoever has a display."""
    extra = "camera" if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") else "camera-headless"
    return f'pip install "edgenet[{extra}]"'


def _ssh() -> Check:
    found = shutil.which("ssh")
    return Check(
        "ssh", bool(found), found or "not installed", ("bench",), "" if found else "install the OpenSSH client"
    )


def _adb() -> Check:
    try:
        return Check("adb", True, str(find_adb()), ("bench", "camera"), "")
    except RuntimeMissing as exc:
        found, _, fix = str(exc).removeprefix("adb is ").partition(": ")
        return Check("adb", False, found, ("bench", "camera"), fix)


def _processor() -> Check:
    features = isa_features()
    fast = [name for name in features if name in INT8_FEATURES]
    how = ", ".join(features) or "no features listed"
    note = "" if fast else "; no int8 dot product: int8 gains less here"
    if not is_exact_alone_here():
        note += f", and ONNX Runtime's int8 is right only with {EXACT[0]}={EXACT[1]}, which edgenet sets"
    return Check("Processor", True, f"{cpu_model()}, {os.cpu_count()} cores ({how}{note})", ("bench",), "")


def _governor(governor: str, driver: str) -> Check:
    if governor == "powersave" and driver not in OWN_GOVERNORS:
        fix = "sudo cpupower frequency-set -g performance"
        return Check("CPU governor", False, "powersave: timings may be those of the lowest clock", ("bench",), fix)
    return Check("CPU governor", True, governor, ("bench",), "")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
