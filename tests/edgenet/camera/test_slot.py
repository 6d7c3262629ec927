"""The place for the newest thing: what is lost, what waits, and what ends."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from edgenet.camera.frame import Slot


@given(st.lists(st.one_of(st.integers(), st.just("take"))))
def test_it_holds_the_newest_alone_and_says_what_it_replaced(steps: list[int | str]) -> None:
    slot: Slot[int] = Slot()
    held: int | None = None
    for step in steps:
        if isinstance(step, str):
            assert slot.take(0) == held
            held = None
        else:
            assert slot.put(step) is (held is not None)
            held = step


def test_what_waits_loses_nothing_and_keeps_the_order() -> None:
    slot: Slot[int] = Slot()
    never = threading.Event()

    def feed() -> None:
        for number in range(500):
            slot.put(number, wait=never)
        slot.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    taken = []
    while not slot.finished:
        thing = slot.take(1)
        if thing is not None:
            taken.append(thing)
    feeder.join()
    assert taken == list(range(500))


def test_who_waits_is_let_go_by_the_event_and_by_the_end() -> None:
    for let_go in ("event", "end"):
        slot: Slot[int] = Slot()
        slot.put(1)
        stop = threading.Event()
        waiting = threading.Thread(target=slot.put, args=(2,), kwargs={"wait": stop})
        waiting.start()
        time.sleep(0.05)
        assert waiting.is_alive()
        if let_go == "event":
            stop.set()
        else:
            slot.close()
        waiting.join(1)
        assert not waiting.is_alive()


def test_taking_ends_at_once_when_no_more_will_come() -> None:
    slot: Slot[int] = Slot()
    threading.Timer(0.05, slot.close).start()
    began = time.monotonic()
    assert slot.take(10) is None
    assert time.monotonic() - began < 5
    assert slot.finished


def test_what_is_there_at_the_end_is_still_taken() -> None:
    slot: Slot[int] = Slot()
    slot.put(1)
    slot.close()
    assert not slot.finished
    assert slot.take(0) == 1
    assert slot.finished
