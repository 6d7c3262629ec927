"""Is one benchmark result slower than another? Bootstrap over the repetitions, and honest where they cannot tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from devices.statistics import Ratio, paired_ratio, ratio
from edgenet.errors import EdgenetError, GateMissed, UsageError
from edgenet.results.kept import Recorded

Answer = Literal["faster", "slower", "no difference", "cannot tell", "no evidence"]

ENOUGH = 5
"""Repetitions from which a bootstrap interval of a median is worth its name: the lowest and the highest of fewer hold
the true median less often than 15 times in 16."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A result beside another of the same device and number of threads.

    Attributes:
        base: what was.
        new: what is.
        ratio: median of new / base; None where there is no evidence.
        interval: its 95 % interval; None where there are too few repetitions for one.
        paired: both were timed in turns, so that what drifted met both alike.
        answer: of new.
        why: of the answer, where it is none; else "".
        remarks: what a reader should know, a line each.
    """

    base: Recorded
    new: Recorded
    ratio: float | None
    interval: tuple[float, float] | None
    paired: bool
    answer: Answer
    why: str
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a comparison found; left_out: a line for each result that has no partner."""

    rows: tuple[Comparison, ...]
    tolerance: float
    left_out: tuple[str, ...]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know, a line each."""
        return tuple(dict.fromkeys([*self.left_out, *(line for row in self.rows for line in row.remarks)]))


def compare(
    base: Sequence[Recorded],
    new: Sequence[Recorded],
    tolerance: float,
    device: str | None = None,
    threads: int | None = None,
) -> Outcome:
    """Compare results of the same device and number of threads; of the same file name, where there are several.

    Args:
        base: what was.
        new: what is.
        tolerance: as a share: new is slower where the whole interval of new / base lies above 1 + tolerance, faster
            where it lies below 1 / (1 + tolerance), which is the same seen from the other side.
        device: only this one.
        threads: only this number.

    Raises:
        UsageError: nothing fits together.
    """
    sides = [
        [one for one in side if device in (None, one.device) and threads in (None, one.threads)] for side in (base, new)
    ]
    for name, side in zip(("BASE", "NEW"), sides, strict=True):
        if not side:
            wanted = f" on {device}" * (device is not None) + f" with {threads} threads" * (threads is not None)
            raise UsageError(f"{name} has no result{wanted}: edgenet results")
    pairs, left_out = _match(*sides)
    return Outcome(tuple(_compared(*pair, tolerance) for pair in pairs), tolerance, left_out)


def check(outcome: Outcome) -> None:
    """Raise GateMissed where something is slower, and EdgenetError where nothing shows that it is not."""
    slower = [f"{_named(row.new)} takes {row.ratio:.3f}x as long" for row in outcome.rows if row.answer == "slower"]
    if slower:
        raise GateMissed(f"slower by more than {100 * outcome.tolerance:g} %: {'; '.join(slower)}")
    refused = [row.why for row in outcome.rows if row.answer == "no evidence"]
    if refused:
        raise EdgenetError(f"no evidence: {'; '.join(refused)}")


def judge(interval: tuple[float, float], tolerance: float) -> Answer:
    """Say what a 95 % interval of new / base means; tolerance as in compare."""
    low, high = interval
    limit = 1 + tolerance
    if low > limit:
        return "slower"
    if high < 1 / limit:
        return "faster"
    return "no difference" if 1 / limit <= low and high <= limit else "cannot tell"


def parse_tolerance(text: str) -> float:
    """Read "3%", "0.03" or "3", all of them 0.03.

    Raises:
        UsageError: something else.
    """
    number = text.strip()
    try:
        value = float(number.removesuffix("%"))
    except ValueError:
        value = math.nan
    if number.endswith("%") or value >= 1:
        value /= 100
    elif value > 0.2:
        raise UsageError(f"--tolerance {text}: say {value:g}% or {value:.0%}")
    if not 0 <= value < 1:
        raise UsageError(f"--tolerance {text}: give a share of the latency, such as 3%")
    return value


def _compared(base: Recorded, new: Recorded, tolerance: float) -> Comparison:
    paired = bool(base.call) and base.call == new.call
    for one in (base, new):
        if one.verdict == "throttled" or not one.counted:
            what = f": {one.why}" if one.why else ""
            why = f"{_named(one)} is throttled{what}; measure it again once the device is cool"
            return Comparison(base, new, None, None, paired, "no evidence", why, ())
    ours, theirs = _medians(base, new, paired)
    enough = min(len(ours), len(theirs))
    if not enough:
        why = f"{_named(new)}: no round counts on both sides; measure them again once the device is cool"
        return Comparison(base, new, None, None, paired, "no evidence", why, ())
    remarks = _remarks(base, new)
    found = _ratio(ours, theirs, paired)
    if enough < ENOUGH:
        few = base if len(ours) < len(theirs) else new
        said = f"{enough} repetition{'s are' if enough > 1 else ' is'} too few for an interval"
        why = f"{_named(few)}: {said}: --repetitions {ENOUGH} or more"
        return Comparison(base, new, found.value, None, paired, "cannot tell", why, (*remarks, why))
    answer = judge((found.low, found.high), tolerance)
    why = ""
    if answer == "cannot tell":
        why = (
            f"{_named(new)}: its interval reaches over a limit: more --repetitions, or files timed in one edgenet bench"
        )
        remarks += (why,)
    return Comparison(base, new, found.value, (found.low, found.high), paired, answer, why, remarks)


def _medians(base: Recorded, new: Recorded, paired: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Medians of the repetitions of both; where they are paired, of the rounds that count on both sides."""
    sides = [{one.round: one.median_ms for one in side.counted} for side in (base, new)]
    if paired:
        common = sorted(sides[0].keys() & sides[1].keys())
        sides = [{turn: side[turn] for turn in common} for side in sides]
    ours, theirs = (np.array(list(side.values()), np.float64) for side in sides)
    return ours, theirs


def _ratio(base: NDArray[np.float64], new: NDArray[np.float64], paired: bool) -> Ratio:
    """New / base. Always drawn the same way round, so that who swaps the two gets the same answer, swapped."""
    divided = paired_ratio if paired else ratio
    if tuple(new) <= tuple(base):
        return divided(new, base)
    found = divided(base, new)
    return Ratio(1 / found.value, 1 / found.high, 1 / found.low)


def _remarks(base: Recorded, new: Recorded) -> tuple[str, ...]:
    said = []
    if base.call and (base.call, base.repetitions) == (new.call, new.repetitions):
        said.append(f"{_named(new)}: BASE and NEW are one measurement, and never differ; edgenet results lists others")
    for one in (base, new):
        if one.verdict == "unstable":
            said.append(f"{_named(one)} is unstable: {one.why}")
        if not one.complete:
            said.append(f"{_named(one)}: its benchmark is not complete; it has {len(one.counted)} repetitions so far")
    if base.runner and new.runner and base.runner != new.runner:
        said.append(f"{_named(new)}: timed by the {new.runner} runner, and by the {base.runner} one before")
    if base.runtime and new.runtime and base.runtime != new.runtime:
        said.append(f"{_named(new)}: {new.runtime}, and {base.runtime} before")
    if base.delegate and new.delegate and (base.delegate == "none") != (new.delegate == "none"):
        said.append(f"{_named(new)}: its delegate is {new.delegate}, and was {base.delegate} before")
    return tuple(said)


def _match(
    base: Sequence[Recorded], new: Sequence[Recorded]
) -> tuple[list[tuple[Recorded, Recorded]], tuple[str, ...]]:
    """Pair results by device and threads; by the file's name, too, where one side has several files."""
    keys: tuple[Callable[[Recorded], tuple[Any, ...]], ...] = (
        lambda one: (one.device, one.threads),
        lambda one: (one.device, one.threads, one.file),
    )
    for key in keys:
        ours, theirs = {key(one): one for one in base}, {key(one): one for one in new}
        if (len(ours), len(theirs)) == (len(base), len(new)):
            break
    else:
        raise UsageError("one side holds several results of one file name: name one by its number in edgenet results")
    pairs = [(ours[at], theirs[at]) for at in sorted(ours.keys() & theirs.keys())]
    if not pairs:
        raise UsageError(_no_pair(base, new))
    for one, other in pairs:
        if one.board and other.board and one.board != other.board:
            raise UsageError(f"{one.device} was {one.board} and is {other.board}: only results of one device compare")
    alone = [one for at, one in ours.items() if at not in theirs] + [
        one for at, one in theirs.items() if at not in ours
    ]
    return pairs, tuple(f"{_named(one)}: the other side has no such result" for one in alone)


def _no_pair(base: Sequence[Recorded], new: Sequence[Recorded]) -> str:
    before, after = ({one.device for one in side} for side in (base, new))
    if not before & after:
        where = f"BASE was timed on {', '.join(sorted(before))} and NEW on {', '.join(sorted(after))}"
        return f"{where}: latencies of different devices do not compare; time both files on one"
    sides = ("; ".join(map(_named, side)) for side in (base, new))
    what = "the device, the threads and, of several files, the name must be the same"
    return "BASE has {}. NEW has {}. {}".format(*sides, what)


def _named(one: Recorded) -> str:
    number = "" if one.id is None else f"{one.id}: "
    return f"{number}{one.file} on {one.device}, {one.threads} thread{'s' * (one.threads > 1)}"
