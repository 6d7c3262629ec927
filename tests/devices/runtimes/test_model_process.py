"""A model file in its own process: what kills, hangs or fools it ends in one clear error."""

from __future__ import annotations

import importlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from devices.errors import DeviceError, ModelCrashed, ModelTimeout, ModelUnreadable, RuntimeMissing
from devices.runtimes.model_process import ModelProcess
from devices.runtimes.timing import Schedule
from tests.devices.tiny_models import (
    SIZE,
    endless_onnx,
    expected,
    petabyte_onnx,
    pictures,
    tiny_onnx,
    tiny_tflite,
    write,
)

ROOT = Path(__file__).resolve().parents[3]


def refused(path: Path, error: type[DeviceError], timeout_s: float = 60.0) -> str:
    """Open a file that must fail; give the error's one line."""
    with pytest.raises(error) as caught, ModelProcess(path, timeout_s=timeout_s):
        pass
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("m.tflite", b"", "is empty: convert or download it again"),
        ("m.onnx", b"", "is empty: convert or download it again"),
        ("m.tflite", b"<!doctype html><html>", "is no TFLite model (bytes 4..8 are not TFL3)"),
        ("m.tflite", b"\x1c\0\0\0TF", "is no TFLite model"),
        (
            "m.tflite",
            b"version https://git-lfs.github.com/spec/v1\n",
            "is a Git LFS pointer and not the model: git lfs pull",
        ),
        ("m.png", b"\x89PNG", "ends neither in .tflite nor in .onnx"),
        ("m.keras", b"PK", "is a Keras file, which no device runs: edgenet convert m.keras"),
        ("m", b"x", "ends neither in .tflite nor in .onnx"),
    ],
)
def test_what_is_plainly_no_model_needs_no_child(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    path = write(tmp_path, name, data)
    with pytest.raises(ModelUnreadable) as caught:
        ModelProcess(path)  # refuses in the constructor, which starts a child but never waits for one
    assert f"{name} {says}".replace(f"convert {name}", f"convert {path}") in str(caught.value)


def test_missing_a_folder_and_a_pipe(tmp_path: Path) -> None:
    assert "does not exist: check the path" in refused(tmp_path / "m.tflite", ModelUnreadable)
    (tmp_path / "d.tflite").mkdir()
    assert "is a folder" in refused(tmp_path / "d.tflite", ModelUnreadable)
    os.mkfifo(tmp_path / "p.tflite")
    assert "is no regular file" in refused(tmp_path / "p.tflite", ModelUnreadable)
    assert "cannot be read" in refused(tmp_path / "m\0.tflite", ModelUnreadable)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_no_permission(tmp_path: Path) -> None:
    path = write(tmp_path, "m.tflite", tiny_tflite())
    path.chmod(0)
    assert "Permission denied" in refused(path, ModelUnreadable)


def test_truncated_and_corrupt_files_give_the_runtimes_reason(tmp_path: Path) -> None:
    assert "LiteRT" in refused(write(tmp_path, "t.tflite", tiny_tflite()[:300]), ModelUnreadable)
    says = refused(write(tmp_path, "t.onnx", tiny_onnx()[:200]), ModelUnreadable)
    assert "ONNX Runtime" in says
    assert "protobuf" in says.lower()
    whole = write(tmp_path, os.fsdecode(b"\xff.onnx"), tiny_onnx())
    assert "open no path that is not UTF-8: rename it" in refused(whole, ModelUnreadable)


@pytest.mark.parametrize(("how", "name"), [("aborts", "SIGABRT"), ("segfaults", "SIGSEGV")])
def test_a_file_that_kills_the_runtime(tmp_path: Path, how: str, name: str) -> None:
    says = refused(write(tmp_path, "m.tflite", tiny_tflite(beside=how)), ModelCrashed)
    assert f"m.tflite: its runtime died of {name}" in says
    assert not list(tmp_path.glob("core*"))


def test_a_file_that_asks_for_petabytes(tmp_path: Path) -> None:
    says = refused(write(tmp_path, "m.onnx", petabyte_onnx()), ModelUnreadable)
    assert "ConstantOfShape" in says or "bad_alloc" in says  # by the version of ONNX Runtime


@pytest.mark.skipif(sys.platform != "linux", reason="limits are read from /proc")
def test_the_child_may_not_take_all_memory_nor_fill_the_disk(tmp_path: Path) -> None:
    path = write(tmp_path, "m.tflite", tiny_tflite())
    with ModelProcess(path) as process:
        limits = Path(f"/proc/{process.pid}/limits").read_text()
    soft = {line[:25].strip(): line[25:].split()[0] for line in limits.splitlines()}
    assert int(soft["Max address space"]) == (8 << 30) + 20 * path.stat().st_size
    assert int(soft["Max file size"]) == 16 << 20
    assert int(soft["Max core file size"]) == 0


def test_a_file_whose_inference_never_ends_is_killed_on_time(tmp_path: Path) -> None:
    path = write(tmp_path, "m.onnx", endless_onnx())
    start = time.monotonic()
    process = ModelProcess(path, timeout_s=1.5)
    with pytest.raises(ModelTimeout, match=r"m\.onnx: no answer in 1\.5 s"), process:
        pass
    assert 1.5 <= time.monotonic() - start < 6
    assert gone(process.pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_child_killed_in_the_middle(tmp_path: Path, number: signal.Signals) -> None:
    with ModelProcess(write(tmp_path, "m.tflite", tiny_tflite())) as process:
        os.kill(process.pid, number)
        with pytest.raises(ModelCrashed, match=f"its runtime died of {number.name}"):
            process.run(pictures(2))
        with pytest.raises(DeviceError, match="its process is closed"):
            process.run(pictures(2))


def test_an_interrupt_while_it_starts_is_one(tmp_path: Path) -> None:
    """In the middle of the wait for its watch, whose lock is given back for that: it was called unlocked."""
    path = write(tmp_path, "m.tflite", tiny_tflite())
    before, there = sys.gettrace(), children()

    def trace(frame: FrameType, _event: str, _: object) -> Any:
        if frame.f_code is threading.Condition.wait.__code__ and "saved_state" in frame.f_locals:
            sys.settrace(before)
            signal.raise_signal(signal.SIGINT)
        return trace

    sys.settrace(trace)
    try:
        with pytest.raises(KeyboardInterrupt):
            ModelProcess(path)
    finally:
        sys.settrace(before)
    assert children() == there


def test_a_child_killed_while_it_measures(tmp_path: Path) -> None:
    with ModelProcess(write(tmp_path, "m.tflite", tiny_tflite())) as process:
        threading.Timer(0.5, os.kill, (process.pid, signal.SIGKILL)).start()
        with pytest.raises(ModelCrashed, match="SIGKILL"):
            process.measure(Schedule(duration_s=30))


def test_a_stopped_child_is_killed_on_time_even_while_we_write(tmp_path: Path) -> None:
    path = write(tmp_path, "m.tflite", tiny_tflite())
    for count in (1, 20_000):  # the second is larger than any pipe's buffer: the write itself blocks
        with ModelProcess(path, timeout_s=20) as process:
            process.timeout_s = 0.5
            os.kill(process.pid, signal.SIGSTOP)
            start = time.monotonic()
            with pytest.raises(ModelTimeout):
                process.run(np.zeros((count, SIZE, SIZE, 3), np.uint8))
            assert time.monotonic() - start < 4
            assert gone(process.pid)


def test_many_images_cross_in_several_messages(tmp_path: Path) -> None:
    images = pictures(25_000)  # 4.8 MB, two messages
    with ModelProcess(write(tmp_path, "m.tflite", tiny_tflite())) as process:
        assert np.abs(process.run(images) - expected(images)).max() < 1e-5
        assert process.run(images[:0]).shape == (0, 3)
        assert np.array_equal(process.run(images[:4, ::-1]), process.run(np.ascontiguousarray(images[:4, ::-1])))


def test_meanwhile_is_while_the_child_works(tmp_path: Path) -> None:
    with ModelProcess(write(tmp_path, "m.tflite", tiny_tflite())) as process:
        answered: list[bool] = []
        process.run(pictures(1), lambda: answered.append(bool(select.select([process._from], [], [], 20)[0])))
        assert answered == [True]
        process.run(pictures(25_000), lambda: answered.append(True))  # two messages
        assert len(answered) == 3


def test_nobody_is_given_rows_of_other_images_after_an_error_meanwhile(tmp_path: Path) -> None:
    with ModelProcess(write(tmp_path, "m.tflite", tiny_tflite())) as process:
        with pytest.raises(ZeroDivisionError):
            process.run(pictures(2), lambda: 1 // 0)  # type: ignore[arg-type]
        with pytest.raises(DeviceError, match="closed"):
            process.run(pictures(1))


def test_closing_it_as_it_dies_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ModelProcess(write(tmp_path, "m.tflite", tiny_tflite())) as process:
        os.kill(process.pid, signal.SIGKILL)
        wait = process._process.wait
        monkeypatch.setattr(process._process, "wait", lambda timeout: (wait(timeout), process.close())[0])
        with pytest.raises(ModelCrashed, match="SIGKILL"):
            process.run(pictures(1))


def test_an_error_leaves_the_process_usable(tmp_path: Path) -> None:
    with ModelProcess(write(tmp_path, "m.tflite", tiny_tflite())) as process:
        with pytest.raises(DeviceError, match="takes uint8, not float32"):
            process.run(pictures(1).astype(np.float32))
        assert process.run(pictures(1)).shape == (1, 3)


def test_close_twice_and_no_child_left(tmp_path: Path) -> None:
    with ModelProcess(write(tmp_path, "m.tflite", tiny_tflite())) as process:
        pid = process.pid
    process.close()
    assert gone(pid)


def test_a_child_outlives_no_killed_parent(tmp_path: Path) -> None:
    path = write(tmp_path, "m.tflite", tiny_tflite())
    code = (
        "import sys, time; from devices.runtimes.model_process import ModelProcess\n"
        "process = ModelProcess(sys.argv[1]).__enter__(); print(process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    assert soon_gone(child, 5)


def test_the_time_in_which_it_was_stopped_does_not_count(tmp_path: Path) -> None:
    path = write(tmp_path, "m.tflite", tiny_tflite())
    code = (
        "import sys; from devices.runtimes import model_process; from devices.runtimes.timing import Schedule\n"
        "model_process._ORPHAN_S = 0.5\n"
        "with model_process.ModelProcess(sys.argv[1], timeout_s=10) as process:\n"
        "    process.timeout_s = 0.5; print('open', flush=True)\n"
        "    print(len(process.measure(Schedule(duration_s=1, cap_s=1)).samples_ns) > 0)"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "open\n"
        time.sleep(0.3)
        os.killpg(parent.pid, signal.SIGSTOP)  # Ctrl-Z
        time.sleep(5)
        os.killpg(parent.pid, signal.SIGCONT)  # fg
        assert parent.communicate(timeout=20)[0] == "True\n"


def test_a_child_that_computes_for_ever_ends_without_its_parent(tmp_path: Path) -> None:
    path = write(tmp_path, "m.tflite", tiny_tflite())
    code = (
        "import sys; from devices.runtimes import model_process; from devices.runtimes.timing import Schedule\n"
        "with model_process.ModelProcess(sys.argv[1], timeout_s=10) as process:\n"
        "    model_process._ORPHAN_S = 2 - 2 * 60 - 10; print(process.pid, flush=True)\n"
        "    process.measure(Schedule(duration_s=60, cap_s=60))"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    assert soon_gone(child, 8)


def test_ctrl_c_ends_both_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "m.tflite", tiny_tflite())
    code = (
        "import sys; from devices.runtimes.model_process import ModelProcess\n"
        "from devices.runtimes.timing import Schedule\n"
        "with ModelProcess(sys.argv[1]) as process:\n"
        "    print(process.pid, flush=True); process.measure(Schedule(duration_s=60, cap_s=60))"
    )
    command = [sys.executable, "-c", code, str(path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # A job in the background starts with SIGINT ignored, and so would its children.
    hear = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), "start_new_session": True}
    with subprocess.Popen(command, cwd=ROOT, text=True, **hear, **pipes) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.3)
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to the whole group
        _, said = parent.communicate(timeout=10)
    assert said.strip().endswith("KeyboardInterrupt")
    assert gone(child)


def test_the_current_folder_is_not_imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "m.tflite", tiny_tflite())
    for name in ("numpy.py", "json.py", "devices.py"):
        write(tmp_path, name, b"raise SystemExit('ran what lay beside the model')")
    monkeypatch.chdir(tmp_path)
    with ModelProcess("m.tflite") as process:
        assert process.run(pictures(1)).shape == (1, 3)
    assert path.exists()


class NoNativeOpenCV:
    """Stands for a system without libGL: OpenCV's loader is found, what it loads is not."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "cv2" and any(place.endswith("cv2") for place in sys.path):
            raise ImportError("libGL.so.1: cannot open shared object file")


def test_an_opencv_that_does_not_load_hides_nothing_of_the_standard_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "meta_path", [NoNativeOpenCV(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", "")  # which the loader changes, too
    with pytest.raises(ImportError, match="libGL"):
        importlib.import_module("cv2")  # as `import keras` does
    assert any(Path(place, "typing").is_dir() for place in sys.path)
    with ModelProcess(write(tmp_path, "m.tflite", tiny_tflite())) as process:
        assert process.run(pictures(1)).shape == (1, 3)


def test_what_a_runtime_prints_neither_breaks_nor_reaches_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # A sitecustomize-like module that the runtime imports: it prints from Python and from C, a megabyte of it.
    folder = tmp_path / "noisy"
    folder.mkdir()
    noise = "import os, sys\nprint('noise')\nfor fd in (1, 2):\n    os.write(fd, b'native noise\\n' * 80000)\n"
    write(folder, "flatbuffers.py", noise.encode() + b"raise ImportError('flatbuffers is not used by the interpreter')")
    write(folder, "ai_edge_litert.py", noise.encode() + REAL_PACKAGE.encode())
    monkeypatch.syspath_prepend(folder)
    with ModelProcess(write(tmp_path, "m.tflite", tiny_tflite())) as process:
        assert process.run(pictures(1)).shape == (1, 3)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


# Stands before the real package on the path, makes its noise, and gives way.
REAL_PACKAGE = """
import importlib
sys.path.remove(os.path.dirname(__file__))
del sys.modules["ai_edge_litert"]
importlib.invalidate_caches()
importlib.import_module("ai_edge_litert")
"""


def test_no_runtime_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ai_edge_litert", "tflite_runtime", "onnxruntime"):
        write(tmp_path, f"{name}.py", f"raise ImportError('{name}: no such wheel')".encode())
    monkeypatch.syspath_prepend(tmp_path)
    says = refused(write(tmp_path, "m.tflite", tiny_tflite()), RuntimeMissing)
    assert "m.tflite: no runtime reads .tflite here (ai-edge-litert: ai_edge_litert: no such wheel" in says
    assert says.endswith('pip install "edgenet[device]"')
    says = refused(write(tmp_path, "m.onnx", tiny_onnx()), RuntimeMissing)
    assert says.endswith('onnxruntime is missing here (onnxruntime: no such wheel): pip install "edgenet[device]"')


def test_nothing_here_imports_tensorflow_and_the_parent_no_runtime(tmp_path: Path) -> None:
    path = write(tmp_path, "m.tflite", tiny_tflite())
    code = (
        "import sys, importlib, pathlib\n"
        "for file in pathlib.Path('devices').rglob('*.py'):\n"
        "    importlib.import_module('.'.join(file.with_suffix('').parts))\n"
        "from devices.doctor import examine; from devices.latency import measure\n"
        "from devices.runtimes.timing import Schedule\n"
        "measure([sys.argv[1]], schedule=Schedule(0, 1, 0, 1, 1, 1)); examine()\n"
        "heavy = {'tensorflow', 'keras', 'onnx', 'onnxruntime', 'ai_edge_litert', 'tflite_runtime', 'cv2', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_child_imports_no_tensorflow(tmp_path: Path) -> None:
    files = [write(tmp_path, "m.tflite", tiny_tflite()), write(tmp_path, "m.onnx", tiny_onnx())]
    code = (
        "import sys, pathlib; from devices.runtimes.session import open_session\n"
        "from devices.runtimes.runtime import run, example_input\n"
        "for name in sys.argv[1:]:\n"
        "    s = open_session(pathlib.Path(name), 1); run(s, example_input(s.info.inputs[0]))\n"
        "print(sorted({'tensorflow', 'keras', 'onnx', 'cv2', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *files], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def children() -> str:
    """Return the ids of the processes that this thread has started and that are there."""
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()


def gone(pid: int) -> bool:
    """Say whether no live process has this id (an orphan that waits to be reaped is gone)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def soon_gone(pid: int, seconds: float) -> bool:
    """Say whether a process ends within so long."""
    end = time.monotonic() + seconds
    while not gone(pid) and time.monotonic() < end:
        time.sleep(0.1)
    return gone(pid)
