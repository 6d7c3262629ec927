"""The camera's benchmark of the command itself: Ctrl-C while it records, and the answers that evaluate gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from camera_sides import Goals

from edgenet.dataset import batches, image_files
from edgenet.proof.subjects import open_artifact, scorer
from tests.edgenet.camera.sinks.test_recording import frames_of
from tests.edgenet.camera.started import Started, lines
from tests.edgenet.camera.test_cli_camera import lossless


def ctrl_c(url: str, goals: Goals, seconds: float = 5.0) -> None:
    """How long Ctrl-C takes while a camera is recorded, and whether the recording plays."""
    with tempfile.TemporaryDirectory() as folder:
        video, log = Path(folder) / "out.mp4", Path(folder) / "seen.jsonl"
        options = ("--view", "none", "--record", video, "--log", log)
        with Started(Path(folder), "--source", url, *options) as it:
            it.wait(lambda: len(lines(log)) > 30 * seconds, 30 + 3 * seconds)
            began = time.monotonic()
            it.interrupt()
            code = it.process.wait(20)
            took = time.monotonic() - began
        frames = len(frames_of(video)[0]) if video.exists() else 0
    whole = code == 0 and frames > 20 * seconds
    goals.row("Ctrl-C while it records", f"{took:.2f} s, {frames} frames play", "< 1 s, playable", took < 1 and whole)


def same_answers(goals: Goals) -> None:
    """Top-1 of the camera and of `edgenet evaluate`, on photographs and on the validation folder as a lossless clip."""
    data = Path(os.environ.get("EDGENET_TEST_DATA", ""))
    if "EDGENET_TEST_DATA" not in os.environ or not shutil.which("ffmpeg"):
        print("camera top-1 = evaluate top-1: left out, without EDGENET_TEST_DATA or ffmpeg", file=sys.stderr)
        return
    model = data / "foreign" / "mobilenet_v2_1.0_224_quant.tflite"
    validation, photos = data / "imagenet" / "validation", data / "photos"
    with tempfile.TemporaryDirectory() as folder:
        clip = lossless(image_files(validation), Path(folder) / "clip.mkv")
        shown = {validation: seen(model, clip, folder), photos: seen(model, photos, folder)}
    for place, camera in shown.items():
        own = answers(model, place)
        equal = int((camera == own).sum()) if len(camera) == len(own) else 0
        goals.row(f"camera top-1 of {place.name}", f"{equal} of {len(own)} as the file's own", "all", equal == len(own))
    top1 = float(np.mean(shown[validation] == truth(data)))
    command = [sys.executable, "-m", "edgenet", "evaluate", str(model), "--data", str(validation), "--json"]
    known = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]["top1"]
    goals.row("camera top-1, evaluate top-1", f"{top1:.4f}, {known:.4f}", "equal", top1 == known)


def seen(model: Path, source: Path, folder: str) -> np.ndarray:
    """Return the class that the camera says of each frame of a source."""
    log = Path(folder) / f"{source.name}.jsonl"
    command = [sys.executable, "-m", "edgenet", "camera", str(model), "--source", str(source), "--view", "none"]
    subprocess.run([*command, "--log", str(log), "--smooth", "0"], capture_output=True, check=True)
    return np.array([one["top"][0]["index"] for one in lines(log)])


def answers(model: Path, folder: Path) -> np.ndarray:
    """Return the class that the file itself says of each picture of a folder."""
    subject = open_artifact(model)
    files = image_files(folder)
    with scorer(subject) as scores:
        rows = list(scores(batches(files, subject.manifest.input.preprocessing, 8)))
    return np.concatenate(rows).argmax(axis=1)


def truth(data: Path) -> np.ndarray:
    """Return the class of each validation picture; the model's first class is background."""
    rows = [line.split(",", 2) for line in (data / "imagenet" / "classes.csv").read_text().splitlines()[1:]]
    known = {wnid: int(index) + 1 for index, wnid, _ in rows}
    return np.array([known[file.parent.name] for file in image_files(data / "imagenet" / "validation")])
