"""Waiting for a device: until it has cooled down, and until one that was lost is back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from devices.errors import DeviceLost, DeviceUnreachable
from devices.profile import CoolDown

if TYPE_CHECKING:
    from devices.bench import Bench

COOL_DOWN = CoolDown(above_idle_c=5.0, max_s=300.0)
"""Before each repetition, for a device without a profile; max_s: in all."""

RETURN_S, TRY_EVERY_S = 90.0, 2.0
"""How long a device that was lost may take to start anew, by the clock, and how often it is tried."""

Tell = Callable[[str], None]
T = TypeVar("T")


class Patience:
    """How long one call has waited for its device, and may still wait.

    Attributes:
        gap: the device was lost, and came back, since somebody last set this to False.
    """

    def __init__(self, bench: Bench, idle_c: float | None) -> None:
        rule = bench.board.cool_down if bench.board else COOL_DOWN
        self._bench, self._idle_c = bench, idle_c
        self._above_c, self._left_s = rule.above_idle_c, rule.max_s
        self.gap = False

    def cool(self, tell: Tell) -> bool:
        """Wait until the device has cooled down, as long as its rule allows; False where it has not.

        Raises what asking it raises.
        """
        while self._idle_c is not None:
            began = time.monotonic()
            now_c = self.ask(self._bench.state, tell).temperature_c
            if now_c is None or now_c <= self._idle_c + self._above_c:
                break
            if self._left_s <= 0:
                return False
            tell(f"cool down: {now_c:.0f} °C, idle was {self._idle_c:.0f} °C")
            time.sleep(TRY_EVERY_S)
            self._left_s -= time.monotonic() - began
        return True

    def ask(self, question: Callable[[], T], tell: Tell) -> T:
        """Put a question to the device; where it is lost, or away, wait until it is back and put it again.

        Raises what the question raises: DeviceUnreachable where it is not back in RETURN_S, DeviceLost where it came
        back and was lost over the same question again.
        """
        deadline, losses = 0.0, 0
        while True:
            try:
                return question()
            except (DeviceLost, DeviceUnreachable) as exc:
                losses += isinstance(exc, DeviceLost)
                now = time.monotonic()
                deadline = deadline or now + RETURN_S
                if losses > 1 or now >= deadline:
                    raise
                self.gap = True
                tell(f"{self._bench.device} was lost: wait for it")
                if isinstance(exc, DeviceUnreachable):
                    time.sleep(TRY_EVERY_S)
