"""Pictures of the symbols as a camera would see their cards, made from a seed."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgenet.symbols import scene
from edgenet.symbols.glyphs import LABELS, mask
from edgenet.symbols.pose import Pose, draw_pose

SIZE = 96

_MASK_EDGES = (32, 64, 128, 256)


def _ink(class_index: int, pose: Pose, size: int) -> scene.Pixels:
    """The symbol in its pose as a mask [size, size, 1]."""
    # A mask of about twice the pixels to fill: less would blur, more would alias under bilinear sampling.
    edge = next((e for e in _MASK_EDGES if e >= 1.2 * pose.extent * size), _MASK_EDGES[-1])
    warped = mask(class_index, edge).transform(
        (size, size),
        Image.Transform.PERSPECTIVE,
        pose.coefficients(size, edge),
        Image.Resampling.BILINEAR,
    )
    return scene.plane(warped)


def _paper(rng: np.random.Generator, picture: scene.Pixels, pose: Pose, size: int) -> float:
    """Lays a sheet under the symbol, in place, and answers its luminance; without a sheet that of what is there."""
    corners = pose.project(((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)))
    if rng.random() < 0.15:
        # Printed on whatever is there: calmed down under the symbol, else the contrast could vanish within it.
        calm = np.float32(rng.uniform(0.05, 0.3))
        u, v = (sum(c[k] for c in corners) / 4 for k in (0, 1))
        tone = picture[int(min(max(v, 0), 0.99) * size), int(min(max(u, 0), 0.99) * size)].copy()
        picture += (tone - picture) * (1 - calm)
        return scene.luminance(np.clip(tone, 0, 255))
    tint = scene.any_colour(rng, 175, 255) if rng.random() < 0.85 else scene.any_colour(rng, 0, 90)
    left, top, right, bottom = (1 + rng.exponential(0.25) + 0.05 for _ in range(4))
    sheet = scene.polygon(pose.project(((-left, -top), (right, -top), (right, bottom), (-left, bottom))), size)
    surface = tint + scene.cloud(rng, size, int(rng.integers(2, size)), 1) * np.float32(rng.uniform(0, 14))
    if rng.random() < 0.3:  # the sheet's shadow on what lies behind
        shift = max(1, int(size * rng.uniform(0.01, 0.05)))
        picture *= 1 - np.roll(sheet, (shift, shift), (0, 1)) * np.float32(rng.uniform(0.2, 0.6))
    picture += (surface - picture) * sheet
    return scene.luminance(tint)


def _ink_colour(rng: np.random.Generator, paper: float) -> scene.Pixels:
    """A colour that stands out from paper of this luminance by at least 90 levels: mostly black on light paper."""
    if paper > 140 and rng.random() < 0.6:
        return scene.any_colour(rng, 0, 45)
    while True:
        colour = scene.any_colour(rng)
        if abs(scene.luminance(colour) - paper) >= 90:
            return colour


def render(class_index: int, seed: int, size: int = SIZE) -> NDArray[np.uint8]:
    """One picture of one symbol: uint8 RGB [size, size, 3], the same bytes for the same arguments.

    `seed` is any integer from 0 up; the symbol's label is `LABELS[class_index]`. The bytes hold within one version of
    Pillow: between 11 and 13 one pixel in ten thousand differs, where they draw a polygon's edge otherwise.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, class_index))))
    pose = draw_pose(rng)
    ink = _ink(class_index, pose, size)
    picture = scene.background(rng, size)
    paper = _paper(rng, picture, pose, size)
    picture += (_ink_colour(rng, paper) - picture) * ink * np.float32(rng.uniform(0.85, 1))
    if rng.random() < 0.3:
        cover = scene.finger(rng, pose, ink, size)
        if cover is not None:
            skin = rng.random() < 0.7
            colour = np.asarray((200, 150, 125), np.float32) * np.float32(rng.uniform(0.35, 1.2))
            picture += ((colour if skin else scene.any_colour(rng)) - picture) * cover
    return scene.camera(rng, scene.light(rng, picture, size), pose, size)


def batch(count: int, seed: int, size: int = SIZE, start: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures `start` to `start + count` of the stream `seed`: uint8 [count, size, size, 3] and labels int64 [count].

    The symbols take turns, so any stretch is balanced, and two stretches of one stream join to the longer one.
    """
    labels = np.arange(start, start + count) % len(LABELS)
    pictures = np.empty((count, size, size, 3), np.uint8)
    for row, label in enumerate(labels):
        pictures[row] = render(int(label), (seed << 32) + start + row, size)
    return pictures, labels


def write_folder(root: Path, per_class: int, seed: int, size: int = SIZE) -> list[Path]:
    """Class folders named by label with `per_class` PNG files each, as `--data` and `--calibration` read them.

    The files of one seed are the pictures of `batch` with that seed. Answers the paths, in the stream's order.
    """
    paths = []
    for label in LABELS:
        (root / label).mkdir(parents=True, exist_ok=True)
    for number in range(per_class):
        for index, label in enumerate(LABELS):
            picture = render(index, (seed << 32) + number * len(LABELS) + index, size)
            path = root / label / f"{seed}_{number:05d}.png"
            Image.fromarray(picture).save(path, compress_level=1)
            paths.append(path)
    return paths
