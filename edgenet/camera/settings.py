"""What does not change while the camera runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Region:
    """What the model is shown of a picture, in pixels of it as --rotate turns it; turned later, they stay the same."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What does not change while the camera runs.

    Attributes:
        top: how many classes are listed.
        smooth_s: time constant of the average; 0: none. Pictures that are no film are not averaged.
        region: what the model is shown; None: all.
        pace: show a clip at its own rate, where its source tells it, and not as fast as the model goes.
        picture_s: how long a picture stays that is no film; 0: as long as the model takes.
    """

    top: int = 5
    smooth_s: float = 0.5
    region: Region | None = None
    pace: bool = False
    picture_s: float = 0.0
