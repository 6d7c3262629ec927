"""How the camera is doing: rates, ages and times of the last two seconds, and the processor's temperature."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from devices.machine import machine_state
from edgenet.camera.classifier import Card
from edgenet.camera.frame import Stats

WINDOW_NS = 2_000_000_000
_WARMS_S = 5.0  # how often the temperature is read: on a Raspberry Pi that starts a program
_KEPT = 600  # entries of a series: memory is bounded, however fast a clip runs


class _Series:
    """Values of the last two seconds, each with its time."""

    def __init__(self) -> None:
        self._entries: deque[tuple[int, int]] = deque(maxlen=_KEPT)

    def add(self, at_ns: int, value: int = 0) -> None:
        self._entries.append((at_ns, value))

    def values(self, now_ns: int) -> list[int]:
        """Values of the window, sorted."""
        self._forget(now_ns)
        return sorted([value for _, value in self._entries])

    def rate(self, now_ns: int) -> float:
        """Entries a second: exact while they come regularly, and falling as soon as one is overdue."""
        self._forget(now_ns)
        count = len(self._entries)
        if count < 2:
            return count * 1e9 / WINDOW_NS
        first, last = self._entries[0][0], self._entries[-1][0]
        period = (last - first) / (count - 1)
        overdue = max(0.0, now_ns - last - period)
        return (count - 1) * 1e9 / max(1.0, last - first + overdue)

    def _forget(self, now_ns: int) -> None:
        while self._entries and self._entries[0][0] <= now_ns - WINDOW_NS:
            self._entries.popleft()


class Clock:
    """Takes note of what happens, from any thread, and says how it goes."""

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._came, self._answered, self._ages = _Series(), _Series(), _Series()
        self._preprocess, self._inference, self._draw = _Series(), _Series(), _Series()
        self._dropped = 0
        self._total = 0

    @property
    def total(self) -> int:
        """Frames whose answers were shown since the start."""
        return self._total

    @property
    def dropped(self) -> int:
        """Frames that gave way to the next since the start."""
        return self._dropped

    def came(self, *, dropped: bool = False) -> None:
        """Note that a frame came; dropped: another one, which nobody will answer, made room for it."""
        with self._lock:
            self._came.add(self._now_ns())
            self._dropped += dropped

    def answered(self, preprocess_ns: int, inference_ns: int) -> None:
        """Note that a frame was answered, and what that took."""
        with self._lock:
            now = self._now_ns()
            self._answered.add(now)
            self._preprocess.add(now, preprocess_ns)
            self._inference.add(now, inference_ns)

    def forget_times(self) -> None:
        """Forget what answers took: another file gives them from now on."""
        with self._lock:
            self._preprocess, self._inference = _Series(), _Series()

    def shown(self, captured_ns: int, *, paused: bool = False, anew: bool = False) -> None:
        """Note that the sinks have shown the answer to the frame of that time.

        paused: it is as old as the pause, which says nothing. anew: the frame is the one before, answered once more.
        """
        with self._lock:
            now = self._now_ns()
            self._total += not anew
            if not paused:
                self._ages.add(now, now - captured_ns)

    def drew(self, ns: int) -> None:
        """Note what it took to draw."""
        with self._lock:
            self._draw.add(self._now_ns(), ns)

    def stats(self, card: Card, source: str, trouble: str, temperature_c: float | None) -> Stats:
        """Say how it goes; see Stats."""
        with self._lock:
            now = self._now_ns()
            ages = self._ages.values(now)
            return Stats(
                camera_fps=self._came.rate(now),
                inference_fps=self._answered.rate(now),
                age_p50_ms=_percentile_ms(ages, 0.5),
                age_p95_ms=_percentile_ms(ages, 0.95),
                preprocess_ms=_percentile_ms(self._preprocess.values(now), 0.5),
                inference_ms=_percentile_ms(self._inference.values(now), 0.5),
                draw_ms=_percentile_ms(self._draw.values(now), 0.5),
                dropped=self._dropped,
                temperature_c=temperature_c,
                model=card.model,
                precision=card.precision,
                runtime=card.runtime,
                threads=card.threads,
                source=source,
                trouble=trouble,
            )


class Thermometer:
    """The processor's temperature, read now and then in a thread of its own; None where it does not tell."""

    def __init__(
        self, read: Callable[[], float | None] = lambda: machine_state().temperature_c, every_s: float = _WARMS_S
    ) -> None:
        self.temperature_c: float | None = None
        self._every_s = every_s
        self._read = read

    def start(self, stop: threading.Event) -> None:
        """Read until `stop` is set; a machine that does not tell at first is not asked again."""
        threading.Thread(target=self._run, args=(stop,), name="edgenet-temperature", daemon=True).start()

    def _run(self, stop: threading.Event) -> None:
        self.temperature_c = self._read()
        while self.temperature_c is not None and not stop.wait(self._every_s):
            self.temperature_c = self._read()


def _percentile_ms(ordered: Sequence[int], share: float) -> float:
    """Nearest rank of sorted nanoseconds, in milliseconds; 0 of none."""
    return ordered[math.ceil(share * len(ordered)) - 1] / 1e6 if ordered else 0.0
