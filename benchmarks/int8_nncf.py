"""What benchmarks/int8.py starts in NNCF's own environment: a float ONNX graph becomes an int8 one.

    python benchmarks/int8_nncf.py GRAPH IMAGES OUT [--accurate]

GRAPH takes float -1..1 [1, height, width, 3]; IMAGES is an .npy of uint8 [n, height, width, 3]. Imports nothing of
edgenet: that environment has only nncf, onnx, onnxruntime and numpy.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np


def quantize(graph: Path, images: Path, out: Path, *, accurate: bool) -> None:
    """Quantize with NNCF's defaults; accurate: the slower correction of biases, layer after layer."""
    import nncf  # type: ignore[import-not-found]
    import onnx

    model = onnx.load(graph)
    name = model.graph.input[0].name
    pixels = np.load(images)

    def as_input(image: np.ndarray) -> dict[str, np.ndarray]:
        return {name: image[np.newaxis].astype(np.float32) / np.float32(127.5) - np.float32(1)}

    dataset = nncf.Dataset(pixels, as_input)
    made = nncf.quantize(model, dataset, subset_size=len(pixels), fast_bias_correction=not accurate)
    onnx.save(made, out)


def main() -> int:
    """Make one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--accurate", action="store_true")
    options = parser.parse_args()
    quantize(options.graph, options.images, options.out, accurate=options.accurate)
    return 0


if __name__ == "__main__":
    sys.exit(main())
