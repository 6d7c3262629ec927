"""Run an int8 artifact on the board with LiteRT alone: `pip install ".[device]"` brings all it needs, no TensorFlow.

python examples/run_on_a_pi.py MODEL.tflite PICTURE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edgenet.image import Preprocessing, load


def main(model: Path, picture: Path) -> None:
    manifest = json.loads(model.with_name(model.name + ".json").read_text(encoding="utf-8"))
    eats, labels = manifest["input"], manifest["output"]["labels"]
    pixels = load(picture, Preprocessing(eats["height"], eats["width"], eats["crop"]))

    # Raw bytes go in and probabilities come out: the normalization is inside the file.
    runner = Interpreter(str(model), num_threads=4)
    classify = runner.get_signature_runner()
    probabilities = classify(image=pixels[np.newaxis])["probabilities"][0]
    for index in np.argsort(probabilities)[::-1][:5]:
        name = labels[index] if labels else f"class {index}"  # a file made without labels knows none
        print(f"{probabilities[index]:6.1%}  {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
