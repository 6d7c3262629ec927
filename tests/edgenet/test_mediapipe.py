"""A stock MediaPipe ImageClassifier opens our files and names the same symbols: labels and normalization are inside."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgenet.dataset import image_files
from edgenet.image import load
from edgenet.proof.subjects import open_artifact, scorer

# MediaPipe brings an OpenCV of its own, which must not share our environment: this names a Python that has it.
MEDIAPIPE = os.environ.get("EDGENET_TEST_MEDIAPIPE")

CLASSIFY = """
import json, sys
import mediapipe, numpy
from mediapipe.tasks.python import BaseOptions, vision
options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[2]), max_results=1)
with vision.ImageClassifier.create_from_options(options) as classifier:
    answers = []
    for pixels in numpy.load(sys.argv[1]):
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
        answers.append(classifier.classify(image).classifications[0].categories[0].category_name)
print(json.dumps(answers))
"""


@pytest.mark.skipif(not MEDIAPIPE, reason="EDGENET_TEST_MEDIAPIPE is unset: it names a Python that has mediapipe")
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_mediapipe_names_the_same_symbols(made: Path, pictures: Path, tmp_path: Path, precision: str) -> None:
    subject = open_artifact(made / f"symbols_{precision}.tflite")
    prep = subject.manifest.input.preprocessing
    pixels = np.stack([load(file, prep) for file in image_files(pictures, 60)])
    np.save(tmp_path / "pixels.npy", pixels)
    command = [str(MEDIAPIPE), "-c", CLASSIFY, str(tmp_path / "pixels.npy"), str(subject.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with scorer(subject) as scores:
        ours = np.concatenate(list(scores([pixels]))).argmax(axis=1)
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert theirs == [subject.manifest.output.labels[index] for index in ours]
    assert len(set(theirs)) > 15
