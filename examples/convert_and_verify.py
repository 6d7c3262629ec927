"""Convert the embedded classifier to int8, verify it against its float network, and classify one picture.

python examples/convert_and_verify.py OUT [EFFORT]     EFFORT: plain, fast or best; what is done for accuracy
"""

from __future__ import annotations

import sys
from pathlib import Path

import edgenet
from edgenet.symbols.generate import write_folder


def silent(what: str, done: int, total: int) -> None:
    """Take progress and print none."""


def main(out: Path, effort: str = "fast") -> None:
    write_folder(out / "images", 10, seed=5)
    network = edgenet.open_network("symbols")
    calibration = edgenet.calibration_images(out / "images", 200)
    order = edgenet.Order(formats=("tflite",), out=out)
    demand = edgenet.Demand(effort=effort)
    (artifact,) = edgenet.quantize(network, "int8", calibration, order, silent, demand=demand).files

    (proof,) = edgenet.verify_files([artifact.path], calibration.files, against=network, progress=silent)
    print(f"{artifact.path.name}: top-1 agreement {proof.agreement.top1_agreement:.1%}, passed {proof.verdict.passed}")

    picture = calibration.files[0]
    pixels = edgenet.load_image(picture, artifact.manifest.input.preprocessing)
    with edgenet.scorer(artifact, workers=1) as scores:
        (probabilities,) = next(scores([pixels[None]]))
    best = int(probabilities.argmax())
    print(f"{picture.parent.name}/{picture.name}: {artifact.manifest.output.labels[best]} {probabilities[best]:.1%}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"), *sys.argv[2:])
