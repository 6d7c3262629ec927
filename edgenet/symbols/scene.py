"""What surrounds a symbol: background, paper, light, fingers, and the camera's blur and noise.

Only elementwise float32 + - * / and Pillow's integer filters: numpy's sin or exp differ between processors in the
last bit, and a picture must not.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from edgenet.symbols.pose import Pose

Pixels = NDArray[np.float32]  # [size, size, 3] or [size, size, 1], 0..255 for colours and 0..1 for masks

_SMOOTH = 3  # supersampling of polygon edges


def luminance(colour: Pixels) -> float:
    """Rec. 601 luma of one colour."""
    return float(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])


def any_colour(rng: np.random.Generator, low: float = 0, high: float = 255) -> Pixels:
    """A colour [3] between grey and saturated whose channels lie in low..high."""
    grey = rng.uniform(low, high)
    colour = grey + rng.random() * (rng.uniform(low, high, 3) - grey)
    return np.asarray(colour, np.float32)


def plane(array: Image.Image) -> Pixels:
    """An "L" image as a mask [height, width, 1] of 0..1."""
    return np.asarray(np.asarray(array, np.float32)[..., None] * np.float32(1 / 255), np.float32)


def polygon(points: list[tuple[float, float]], size: int) -> Pixels:
    """A filled polygon given in 0..1 as a smooth mask [size, size, 1]."""
    large = size * _SMOOTH
    image = Image.new("L", (large, large))
    ImageDraw.Draw(image).polygon([(x * large, y * large) for x, y in points], fill=255)
    return plane(image.reduce(_SMOOTH))


def cloud(rng: np.random.Generator, size: int, cells: int, channels: int = 3) -> Pixels:
    """Smooth noise of about `cells` blobs across, -1..1."""
    grid = rng.integers(0, 256, (cells, cells, channels), np.uint8)
    image = Image.fromarray(grid if channels == 3 else grid[..., 0])
    wide = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    return np.asarray(wide.reshape(size, size, channels) * np.float32(1 / 127.5) - 1, np.float32)


def _ramp(rng: np.random.Generator, size: int) -> Pixels:
    """A linear ramp in a random direction [size, size, 1], about -1..1."""
    steps = np.linspace(-1, 1, size, dtype=np.float32)
    across, down = np.float32(rng.uniform(-1, 1)), np.float32(rng.uniform(-1, 1))
    return np.asarray(steps[None, :] * across + steps[:, None] * down, np.float32)[..., None]


def _stripes(rng: np.random.Generator, size: int) -> Pixels:
    """Stripes or a chequer, sharp or soft, as a mask [size, size, 1]."""
    periods = np.float32(rng.uniform(2, 12))
    wave = np.abs(_ramp(rng, size) * periods % 2 - 1)
    if rng.random() < 0.4:
        wave = np.abs(wave - np.abs(_ramp(rng, size) * periods % 2 - 1))
    return np.asarray(np.clip((wave - 0.5) * np.float32(rng.uniform(1, 12)) + 0.5, 0, 1), np.float32)


def _clutter(rng: np.random.Generator, picture: Pixels, size: int) -> Pixels:
    """Random shapes and lines over a picture: shelves, windows, furniture, print."""
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 10))):
        colour = tuple(int(c) for c in any_colour(rng))
        points = [(float(x) * size, float(y) * size) for x, y in rng.uniform(-0.2, 1.2, (4, 2))]
        kind = rng.integers(0, 4)
        if kind == 0:
            draw.polygon(points[: int(rng.integers(3, 5))], fill=colour)
        elif kind == 1:
            draw.line(points[: int(rng.integers(2, 5))], fill=colour, width=int(rng.integers(1, max(2, size // 10))))
        else:
            (x, y), (u, v) = points[:2]
            box = (min(x, u), min(y, v), max(x, u), max(y, v))
            (draw.ellipse if kind == 2 else draw.rectangle)(box, fill=colour)
    return np.asarray(image, np.float32)


def background(rng: np.random.Generator, size: int) -> Pixels:
    """A room behind the card: plain, cloudy, striped or cluttered, with a grain."""
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = any_colour(rng)
    if rng.random() < 0.6:
        picture += cloud(rng, size, int(rng.integers(2, 9))) * np.float32(rng.uniform(5, 110))
    if rng.random() < 0.25:
        picture += (any_colour(rng) - picture) * _stripes(rng, size) * np.float32(rng.uniform(0.2, 1))
    if rng.random() < 0.5:
        picture = _clutter(rng, picture, size)
    if rng.random() < 0.6:
        grain = cloud(rng, size, int(rng.integers(size // 6, size)), 1)
        picture += grain * np.float32(rng.uniform(3, 45))
    return picture


def light(rng: np.random.Generator, picture: Pixels, size: int) -> Pixels:
    """Exposure, colour temperature, a gradient across, the edge of a shadow, a highlight."""
    warmth = np.float32(1) + rng.uniform(-0.2, 0.2, 3).astype(np.float32) * np.float32(rng.random())
    field = np.float32(rng.uniform(0.45, 1.3)) * (1 + _ramp(rng, size) * np.float32(rng.uniform(0, 0.45)))
    if rng.random() < 0.3:
        edge = _ramp(rng, size) * np.float32(rng.uniform(2, 20)) + np.float32(rng.uniform(-1.5, 1.5))
        field = field * (1 - np.clip(edge, 0, 1) * np.float32(rng.uniform(0.15, 0.55)))
    lit = picture * np.clip(field, 0.28, 1.6) * warmth
    if rng.random() < 0.15:
        steps = np.linspace(0, 1, size, dtype=np.float32)
        x, y = (steps - np.float32(c) for c in rng.uniform(-0.1, 1.1, 2))
        reach = np.float32(rng.uniform(0.15, 0.6))
        bump = np.clip(1 - (x[None, :] ** 2 + y[:, None] ** 2) / (reach * reach), 0, 1)
        lit = lit + (bump * bump)[..., None] * np.float32(rng.uniform(20, 90))
    haze = np.float32(rng.uniform(0, 50)) if rng.random() < 0.3 else np.float32(0)
    return np.asarray(lit * (1 - haze / 255) + haze, np.float32)


def finger(rng: np.random.Generator, pose: Pose, ink: Pixels, size: int) -> Pixels | None:
    """Something before the symbol's rim, as a mask; None where it would hide more than a tenth of the ink."""
    (x, y), (u, v) = pose.project(((rng.uniform(-1, 1), rng.choice((-1.0, 1.0))), (0.0, 0.0)))
    if rng.random() < 0.5:
        x, y = pose.project(((rng.choice((-1.0, 1.0)), rng.uniform(-1, 1)),))[0]
    half = pose.extent * rng.uniform(0.05, 0.14)
    out_x, out_y = (x - u) * 3, (y - v) * 3
    across = (out_x * out_x + out_y * out_y) ** 0.5 + 1e-6
    side_x, side_y = -out_y / across * half, out_x / across * half
    tip_x, tip_y = x + (u - x) * 0.25, y + (v - y) * 0.25
    cover = polygon(
        [
            (tip_x, tip_y), (tip_x + (x - tip_x) * 0.4 + side_x, tip_y + (y - tip_y) * 0.4 + side_y),
            (x + out_x + side_x, y + out_y + side_y), (x + out_x - side_x, y + out_y - side_y),
            (tip_x + (x - tip_x) * 0.4 - side_x, tip_y + (y - tip_y) * 0.4 - side_y),
        ],
        size,
    )  # fmt: skip
    return cover if float((cover * ink).sum()) <= 0.1 * float(ink.sum()) else None


def camera(rng: np.random.Generator, picture: Pixels, pose: Pose, size: int) -> NDArray[np.uint8]:
    """Focus, motion, chroma subsampling and sensor noise: the finished uint8 picture [size, size, 3]."""
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    reach = pose.extent * size  # a small symbol bears less blur than a large one
    if rng.random() < 0.6:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.03 * reach))))
    if rng.random() < 0.15:
        steps = int(rng.integers(2, 3 + int(0.05 * reach)))
        box = (0, 0) if rng.random() < 0.5 else (steps / 2, 0)
        image = image.filter(ImageFilter.BoxBlur((box[0], steps / 2 - box[0])))
    if rng.random() < 0.3:
        luma, blue, red = image.convert("YCbCr").split()
        half = (max(1, size // 2), max(1, size // 2))
        blue, red = (c.resize(half, Image.Resampling.BOX).resize((size, size)) for c in (blue, red))
        image = Image.merge("YCbCr", (luma, blue, red)).convert("RGB")
    strength = rng.uniform(0, 16) if rng.random() < 0.7 else 0.0
    pixels = np.asarray(image, np.int16)
    if strength < 1:
        return pixels.astype(np.uint8)
    # The sum of two uniform bytes is a triangle of deviation 104.5: near enough to a bell, and the same everywhere.
    dice = rng.integers(0, 256, (2, size, size, 3), np.uint8)
    noise = (dice[0].astype(np.int16) + dice[1] - 255) * np.float32(strength / 104.5)
    return np.asarray(np.clip(pixels + np.rint(noise), 0, 255), np.uint8)
