"""What was seen, as JSON lines: one document a frame, as soon as it is answered."""

from __future__ import annotations

import contextlib
import json
import os
import select
import stat
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from io import FileIO
from pathlib import Path

from edgenet.camera.frame import Answer, Update
from edgenet.errors import EdgenetError

_PIECE = 4096  # bytes that a pipe with any room takes at once (PIPE_BUF)


class Log:
    """A `Sink`: a file of JSON lines.

    What the file held goes when the first line comes: a run that is refused, or answers nothing, leaves it.
    failed: told, in one line, when the file takes no more; it then ends with the last line that was written whole.
    quitting: set once nobody waits any more for a pipe that nobody empties. Raises EdgenetError where it cannot be
    written at all.
    """

    def __init__(
        self,
        path: Path,
        failed: Callable[[str], None] = lambda _: None,
        quitting: threading.Event | None = None,
    ) -> None:
        self._path = path
        self._failed = failed
        self._quitting = quitting or threading.Event()
        self._newest = -1
        self._length = 0  # of the whole lines
        try:
            self._file: FileIO | None = path.open("ab", buffering=0)  # each line at once: tail -f
        except OSError as exc:
            raise EdgenetError(f"cannot write {path}: {exc.strerror}; choose another file") from exc
        self._waits = not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)

    def show(self, update: Update) -> None:
        """Write the update's answer, unless it was the last one already."""
        answer = update.answer
        if self._file is None or answer is None or answer.frame.id == self._newest:
            return
        if self._newest < 0:
            self._cut(0)
        self._newest = answer.frame.id
        line = json.dumps(document(answer), ensure_ascii=False).encode() + b"\n"
        length = self._length + len(line)
        try:
            while line and (not self._waits or _has_room(self._file, self._quitting)):
                line = line[self._file.write(line[:_PIECE]) :]
            if line:  # somebody quits: nothing comes behind half a line
                self.close()
        except OSError as exc:
            self._cut(self._length)
            self.close()
            self._failed(f"{self._path}: the log ends here ({exc.strerror}): make room or choose another file")
        else:
            self._length = length

    def close(self) -> None:
        """End the file; harmless twice."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _cut(self, length: int) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a pipe
                self._file.truncate(length)


def _has_room(file: FileIO, quitting: threading.Event) -> bool:
    """Wait until a pipe takes a piece at once; False where somebody quits meanwhile."""
    while not select.select([], [file], [], 0.1)[1]:
        if quitting.is_set():
            return False
    return True


def document(answer: Answer) -> dict[str, object]:
    """What is logged of an answer; label and probability are the smoothed ones, raw_* those of the frame alone.

    time: when its frame arrived, UTC, ISO 8601; at_s: when a clip shows it, after its first one; null of what is none.
    """
    top, age_s = answer.top[0], (time.monotonic_ns() - answer.frame.captured_ns) / 1e9
    return {
        "id": answer.frame.id,
        "time": datetime.fromtimestamp(time.time() - age_s, timezone.utc).isoformat(timespec="milliseconds"),
        "at_s": None if answer.frame.at_s is None else round(answer.frame.at_s, 3),
        "captured_ns": answer.frame.captured_ns,
        "label": top.label,
        "probability": round(top.smoothed, 6),
        "raw_label": answer.raw.label,
        "raw_probability": round(answer.raw.raw, 6),
        "top": [
            {"index": one.index, "label": one.label, "raw": round(one.raw, 6), "smoothed": round(one.smoothed, 6)}
            for one in answer.top
        ],
        "preprocess_ms": round(answer.preprocess_ns / 1e6, 3),
        "inference_ms": round(answer.inference_ns / 1e6, 3),
        "age_ms": round(age_s * 1e3, 3),
    }
