"""Stills: the picture as the model saw it, in a file of its own."""

from __future__ import annotations

import re
import threading
from datetime import datetime
from pathlib import Path

from edgenet.appearing import appearing
from edgenet.camera.classifier import Tell
from edgenet.camera.frame import Answer
from edgenet.errors import EdgenetError

MOST = 1000
"""Stills of one run: anybody who sees the page can ask for them."""


class Stills:
    """Saves answers' pictures into a folder, in a thread of its own: PNG, losslessly, without what is drawn over them.

    tell: told the name of each, or why there is none.
    """

    def __init__(self, folder: Path, tell: Tell = lambda _: None) -> None:
        self._left = MOST
        self._folder = folder
        self._tell = tell
        self._thread: threading.Thread | None = None

    def save(self, answer: Answer) -> None:
        """Save one; returns at once."""
        if self._thread is not None and self._thread.is_alive():  # one at a time: two might have the same name
            return self._tell("the still before is being saved: this one is not")
        if not self._left:
            return self._tell(f"{MOST} stills were saved, which is all of one run: start edgenet camera again")
        self._left -= 1
        self._thread = threading.Thread(target=self._save, args=(answer,), name="edgenet-still")
        return self._thread.start()

    def close(self) -> None:
        """Wait until it is saved."""
        if self._thread is not None:
            self._thread.join()

    def _save(self, answer: Answer) -> None:
        import cv2

        try:
            path = self._path(answer)
            _, data = cv2.imencode(".png", answer.frame.image)
            with appearing(path) as partial:
                partial.write_bytes(data.tobytes())
        except (EdgenetError, cv2.error) as exc:
            self._tell(str(exc))
        else:
            self._tell(f"saved {path}")

    def _path(self, answer: Answer) -> Path:
        """Name a new file that tells when it was and what was seen: 20250131-120000-123-tench.png."""
        now = datetime.now()
        label = re.sub(r"[^\w-]+", "_", answer.top[0].label)[:40].strip("_") or "unnamed"
        stem = f"{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03}-{label}"
        path, number = self._folder / f"{stem}.png", 1
        while path.exists():  # of the same millisecond, or of a clock that was set back
            number += 1
            path = path.with_name(f"{stem}-{number}.png")
        return path
