"""A model file in a process of its own, so that a file that kills the native runtime ends in one clear error."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from devices.child import reap, uninterrupted
from devices.device import DeviceState
from devices.errors import DeviceError, ModelCrashed, ModelTimeout, ModelUnreadable, RuntimeMissing
from devices.runtimes.model_file import check_model_file, one_line
from devices.runtimes.runtime import Array, ModelInfo, TensorInfo
from devices.runtimes.timing import Run, Schedule
from devices.runtimes.wire import Kind, Message, WireError, receive, send

_ERRORS = {error.__name__: error for error in (ModelUnreadable, RuntimeMissing)}
_CHUNK_BYTES = 4 << 20  # of images in one message
_ORPHAN_S = 10.0  # how long past its parent's deadline a child may compute that has lost its parent
_STOPPED_S = 1.0  # that this process did not run at all: it was stopped, and the child with it

# The child gets this process's own sys.path, never the current folder by default: a numpy.py beside a downloaded
# model must not run. Nor a folder that is a package: an OpenCV that fails to load, as Keras tries to, leaves its own in
# sys.path, with a `typing` in it. `sys` is built in, so nothing is imported before the path is right.
_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[1:]; from devices.runtimes.model_worker import main; main()"


def _start(log: IO[bytes]) -> subprocess.Popen[bytes]:
    places = [place for place in sys.path if place and not Path(place, "__init__.py").exists()]
    places.append(str(Path(__file__).resolve().parents[2]))
    return subprocess.Popen(
        [sys.executable, "-c", _BOOTSTRAP, *places],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # numpy's own threads: start-up time, address space
    )


class ModelProcess:
    """One model file, open in a child process. A context manager.

    threads: of one inference. timeout_s: for opening the file (first inference included), and then for each image.
    Raises ModelUnreadable (no model, corrupt), ModelCrashed (the runtime died), ModelTimeout (no answer; the child is
    killed), RuntimeMissing. The child starts at once; the first use waits for it.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1, timeout_s: float = 60.0) -> None:
        self.path = check_model_file(path)
        self.threads = threads
        self.timeout_s = timeout_s
        self._info: ModelInfo | None = None
        self._timed_out = False
        self._stopped_s = 0.0
        self._deadline = self._clock() + timeout_s
        self._closed = threading.Event()
        process: subprocess.Popen[bytes] | None = None
        try:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - unlike a pipe it never fills up and blocks the child
            with uninterrupted():
                self._process = process = _start(self._log)
                self._to = cast(BinaryIO, self._process.stdin)
                self._from = cast(BinaryIO, self._process.stdout)
                threading.Thread(target=self._watch, name="edgenet-watch", daemon=True).start()
        except OSError as exc:
            raise DeviceError(f"{self.path}: no process can be started for it ({exc}): free memory or disk") from exc
        except KeyboardInterrupt:
            if process is not None:  # it was held back until the child was there
                self.close()
            raise
        self._ask(Kind.OPEN, {"path": str(self.path.absolute()), "threads": threads})

    @property
    def info(self) -> ModelInfo:
        """What the runtime says of the file; waits until it is open."""
        if self._info is None:
            self._info = _model_info(self._answer(Kind.INFO).fields)
        return self._info

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def run(self, images: Array, meanwhile: Callable[[], None] = lambda: None) -> NDArray[np.float32]:
        """Run images [n, ...] one by one; scores float32 [n, classes], dequantised.

        images: the input's own dtype and shape; or uint8 for an int8 input whose zero point is -128, where raw bytes
        need their sign bit flipped and no more. meanwhile: called each time the child has got images and works on them;
        what it raises closes the process. Raises DeviceError for any other dtype or shape.
        """
        tensor = self._only_input()
        raw = np.ascontiguousarray(as_input(images, tensor, self.path))
        step = max(1, _CHUNK_BYTES // max(1, raw[:1].nbytes))
        rows: list[NDArray[np.float32]] = []
        for start in range(0, len(raw), step):
            chunk = raw[start : start + step]
            self._ask(Kind.RUN, {"images": len(chunk)}, chunk, alarm_s=self.timeout_s * len(chunk))
            try:
                meanwhile()
            except BaseException:  # whatever it is, Ctrl-C too: these images' rows would be taken for the next ones'
                self.close()
                raise
            rows += [np.frombuffer(self._answer(Kind.ROW).payload, np.float32) for _ in chunk]
        if not rows:
            return np.empty((0, _classes(self.info)), np.float32)
        return np.stack(rows)

    def measure(self, schedule: Schedule) -> Run:
        """Time bare inferences on a fixed noise input; see devices.runtimes.timing."""
        _ = self.info
        allowed = 2 * schedule.cap_s + self.timeout_s
        self._ask(Kind.TIME, {"schedule": dataclasses.asdict(schedule)}, alarm_s=allowed)
        answer = self._answer(Kind.TIMES, allowed)
        states = {name: DeviceState(**answer.fields[name]) for name in ("warm", "end")}
        return Run(samples_ns=np.frombuffer(answer.payload, np.int64), **{**answer.fields, **states})

    def close(self) -> None:
        """End the child; harmless twice."""
        self._closed.set()
        self._process.kill()
        reap(self._process)
        for stream in (self._to, self._from, self._log):
            with contextlib.suppress(OSError):  # what was still unsent has nobody to go to
                stream.close()

    def __enter__(self) -> ModelProcess:
        try:
            _ = self.info
        except BaseException:  # no error, and no Ctrl-C, leaves the child behind
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _only_input(self) -> TensorInfo:
        inputs = self.info.inputs
        if len(inputs) != 1:
            raise DeviceError(f"{self.path} takes {len(inputs)} inputs: an image classifier takes one")
        return inputs[0]

    def _ask(self, kind: Kind, fields: Mapping[str, Any], payload: Any = b"", alarm_s: float | None = None) -> None:
        if self._closed.is_set():
            raise DeviceError(f"{self.path}: its process is closed")
        self._deadline = self._clock() + self.timeout_s
        alarm = (self.timeout_s if alarm_s is None else alarm_s) + _ORPHAN_S
        try:
            send(self._to, kind, {**fields, "alarm_s": alarm * self.threads}, payload)
        except OSError as exc:
            raise self._death() from exc
        except BaseException:  # Ctrl-C in the middle of a message: nothing sensible can follow it
            self.close()
            raise

    def _answer(self, expected: Kind, allowed_s: float | None = None) -> Message:
        if self._closed.is_set():
            raise DeviceError(f"{self.path}: its process is closed")
        self._deadline = self._clock() + (self.timeout_s if allowed_s is None else allowed_s)
        try:
            message = receive(self._from)
        except (EOFError, OSError) as exc:
            raise self._death() from exc
        except (WireError, ValueError) as exc:
            self.close()
            raise ModelCrashed(f"{self.path}: its process answers nonsense: the file is corrupt") from exc
        except BaseException:  # Ctrl-C in the middle of a message, here, too
            self.close()
            raise
        self._deadline = float("inf")
        if message.kind is Kind.ERROR:
            error = _ERRORS.get(message.fields["error"], DeviceError)
            text = str(message.fields["message"]).replace(str(self.path.absolute()), str(self.path))
            raise error(text if str(self.path) in text else f"{self.path}: {text}")
        if message.kind is not expected:
            raise ModelCrashed(f"{self.path}: its process answered {message.kind.name} and not {expected.name}")
        return message

    def _watch(self) -> None:
        """Kill a child that misses its deadline: whatever blocks on it, a read or a write, then ends."""
        tick = min(0.2, self.timeout_s / 10)
        looked = time.monotonic()
        while not self._closed.wait(tick):
            before, looked = looked, time.monotonic()
            if looked - before > tick + _STOPPED_S:
                self._stopped_s += looked - before
            if self._clock() > self._deadline:
                self._timed_out = True
                self._process.kill()
                return

    def _clock(self) -> float:
        """Seconds, without those in which this process was stopped (Ctrl-Z, docker pause)."""
        return time.monotonic() - self._stopped_s

    def _death(self) -> DeviceError:
        """Say how the child ended; it is gone, or about to be."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        words = self._last_words()
        self.close()
        if self._timed_out:
            return ModelTimeout(
                f"{self.path}: no answer in {self.timeout_s:g} s, its runtime was ended: corrupt, or too slow here"
            )
        how = f"ended with status {code}" if code >= 0 else f"died of {_signal_name(-code)}"
        said = f" ({words})" if words else ""
        return ModelCrashed(f"{self.path}: its runtime {how}{said}: likely corrupt; convert or download it again")

    def _last_words(self) -> str:
        try:
            self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, self._log.tell() - 4096))
            lines = self._log.read().decode("utf-8", "replace").splitlines()
        except (OSError, ValueError):  # another thread closes it at this moment
            return ""
        told = [line for line in lines if line.strip() and not line.startswith(("INFO:", "WARNING:", "W0000", "I0000"))]
        return one_line(told[-1], 120) if told else ""


def as_input(images: Array, tensor: TensorInfo, path: Path) -> Array:
    """Bring images [n, ...] to the input's dtype without changing what they mean; DeviceError where that cannot be."""
    if images.shape[1:] != tensor.shape[1:] or tensor.shape[:1] != (1,):
        raise DeviceError(f"{path} takes inputs of {list(tensor.shape)} one by one, not {list(images.shape)}")
    if images.dtype.name == tensor.dtype:
        return images
    if images.dtype == np.uint8 and tensor.dtype == "int8" and tensor.zero_point == -128:
        flipped: Array = np.bitwise_xor(images, np.uint8(0x80)).view(np.int8)
        return flipped
    raise DeviceError(f"{path} takes {tensor.dtype}, not {images.dtype.name}: prepare its input first")


def _classes(info: ModelInfo) -> int:
    return int(np.prod([abs(n) for n in info.outputs[0].shape[1:]], dtype=np.int64))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _model_info(fields: Mapping[str, Any]) -> ModelInfo:
    def tensors(rows: list[dict[str, Any]]) -> tuple[TensorInfo, ...]:
        return tuple(TensorInfo(**{**row, "shape": tuple(row["shape"])}) for row in rows)

    labels = fields["labels"]
    return ModelInfo(
        **{
            **fields,
            "inputs": tensors(fields["inputs"]),
            "outputs": tensors(fields["outputs"]),
            "labels": None if labels is None else tuple(labels),
        }
    )
