"""Where a flat card stands before the camera: a homography from the card's plane to the picture.

Rotations are built from the tangent of the half angle, so a pose takes only + - * / and square roots: the same
seed gives the same pose on every processor.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

Matrix = tuple[float, float, float, float, float, float, float, float, float]  # row by row
Point = tuple[float, float]

_MAX_TURN = 0.1317  # tan(15 degrees / 2), in the picture's plane
_MAX_TILT = 0.3249  # tan(36 degrees / 2), out of it
_CORNERS: tuple[Point, ...] = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))


def _multiply(a: Matrix, b: Matrix) -> Matrix:
    m = tuple(sum(a[3 * r + k] * b[3 * k + c] for k in range(3)) for r in range(3) for c in range(3))
    return (m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8])


def _inverse(m: Matrix) -> Matrix:
    """The inverse up to a factor, which a homography does not mind."""
    a, b, c, d, e, f, g, h, i = m
    return (
        e * i - f * h, c * h - b * i, b * f - c * e,
        f * g - d * i, a * i - c * g, c * d - a * f,
        d * h - e * g, b * g - a * h, a * e - b * d,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pose:
    """The plane in which the symbol fills [-1, 1] x [-1, 1], seen in a picture that fills [0, 1] x [0, 1]."""

    matrix: Matrix
    extent: float  # the longer side of the symbol's bounding box, as a share of the picture

    def project(self, points: tuple[Point, ...]) -> list[Point]:
        """Points of the plane as points of the picture."""
        a, b, c, d, e, f, g, h, i = self.matrix
        return [
            ((a * x + b * y + c) / w, (d * x + e * y + f) / w)
            for x, y, w in ((x, y, g * x + h * y + i) for x, y in points)
        ]

    def coefficients(self, size: int, edge: int) -> tuple[float, ...]:
        """Pillow's eight numbers from a pixel of a [size, size] picture to a pixel of an [edge, edge] mask."""
        inverse = _inverse(self.matrix)
        half = edge / 2
        to_mask: Matrix = (half, 0.0, half, 0.0, half, half, 0.0, 0.0, 1.0)
        from_pixel: Matrix = (1 / size, 0.0, 0.0, 0.0, 1 / size, 0.0, 0.0, 0.0, 1.0)
        m = _multiply(_multiply(to_mask, inverse), from_pixel)
        return tuple(value / m[8] for value in m[:8])


def _half_angle(tangent: float) -> tuple[float, float]:
    """Cosine and sine of an angle from the tangent of its half."""
    square = tangent * tangent
    return (1 - square) / (1 + square), 2 * tangent / (1 + square)


def draw_pose(rng: np.random.Generator) -> Pose:
    """A random pose: turned by up to 15 degrees, tilted by up to 36, the symbol 0.3 to 0.95 of the picture."""
    turn_cos, turn_sin = _half_angle(rng.uniform(-_MAX_TURN, _MAX_TURN))
    tilt_cos, tilt_sin = _half_angle(_MAX_TILT * rng.random())
    while True:
        x, y = rng.uniform(-1, 1), rng.uniform(-1, 1)
        length = sqrt(x * x + y * y)
        if 0.1 < length < 1:
            break
    x, y = x / length, y / length
    # Rodrigues: turn in the plane, then tilt about the axis (x, y, 0) in it.
    rest = 1 - tilt_cos
    tilt: Matrix = (
        tilt_cos + x * x * rest, x * y * rest, y * tilt_sin,
        x * y * rest, tilt_cos + y * y * rest, -x * tilt_sin,
        -y * tilt_sin, x * tilt_sin, tilt_cos,
    )  # fmt: skip
    r = _multiply(tilt, (turn_cos, -turn_sin, 0.0, turn_sin, turn_cos, 0.0, 0.0, 0.0, 1.0))
    distance = rng.uniform(2.5, 7.0)  # of the camera, in half widths of the symbol
    shape = Pose((r[0], r[1], 0.0, r[3], r[4], 0.0, r[6] / distance, r[7] / distance, 1.0), 1.0)
    return _placed(shape, rng)


def _placed(shape: Pose, rng: np.random.Generator) -> Pose:
    """The same shape, scaled and moved so that the symbol lies in the picture, nearer its middle than its rim."""
    corners = shape.project(_CORNERS)
    left, right = min(x for x, _ in corners), max(x for x, _ in corners)
    top, bottom = min(y for _, y in corners), max(y for _, y in corners)
    extent = rng.uniform(0.3, 0.95)
    scale = extent / max(right - left, bottom - top)
    # The mean of two uniform draws leans to the middle; the box may leave the picture by 3 % of it.
    room_x, room_y = 1.06 - scale * (right - left), 1.06 - scale * (bottom - top)
    x = -0.03 + room_x * (rng.random() + rng.random()) / 2 - scale * left
    y = -0.03 + room_y * (rng.random() + rng.random()) / 2 - scale * top
    return Pose(_multiply((scale, 0.0, x, 0.0, scale, y, 0.0, 0.0, 1.0), shape.matrix), extent)
