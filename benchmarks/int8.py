"""int8 methods side by side: what each one's file answers, what making it costs, how fast it runs.

    EDGENET_TEST_DATA=... python benchmarks/int8.py [--networks V1-0.25,...] [--methods stock-tflite,fast,...]
    EDGENET_TEST_DATA=... python benchmarks/int8.py --symbols [--cache DIR]

The same weights, the same 200 calibration images and the same photographs for all, against the float Keras network.
Everything favours the others: their files end at the logits (a quantized softmax answers zeros, which have no
logarithm, so no SQNR) and take normalized floats, where edgenet's normalize raw bytes and compute the softmax inside.
Each method runs in a process of its own; where a tool starts from a float graph, making that counts. All files of one
network are timed interleaved, in one run.

--crops N evaluates on N random crops of each photograph instead, half of them mirrored: 300 photographs leave an
agreement of 96 % uncertain by 1.1 points, 3000 crops of them by .4.

--symbols compares on V3 trained here on the symbols' pictures: weights that have never been rounded to 8 bits.
Goals that edgenet's fast and best miss are listed after the table; exit code 1. On 2 cores a network takes 3 minutes
and what best takes, training 3 to 10 more.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import int8_symbols
import numpy as np
from int8_makers import HERE, METHODS, STOCK, Made, Makers, Subject, run
from int8_rows import Goals, Row, add, compare, missed, probabilities, table
from PIL import Image
from rich.console import Console

from devices.bench import PythonBench
from devices.errors import DeviceError
from devices.latency import measure, speedup
from devices.runtimes.timing import Schedule
from edgenet.artifact import load
from edgenet.dataset import LabelledImages, batches, labelled
from edgenet.errors import EdgenetError
from edgenet.image import Preprocessing, decode
from edgenet.labels import Labels, read_labels
from edgenet.proof.subjects import open_artifact, scorer
from edgenet.spec import ModelSpec
from edgenet.symbols.glyphs import LABELS

NO_SLOWER = 1 / 1.05
BATCH = 8
WIDTH = 170
CROPS_SEED = 5

IMAGENET = {
    "V1-0.25": ("mobilenet_v1_0.25_224", "mobilenet_v1_0.25_224.h5", Goals(0.96, 22, NO_SLOWER, 0.98)),
    "V1-1.0": ("mobilenet_v1_1.0_224", "mobilenet_v1_1.0_224.weights.h5", Goals(0.96, 22, NO_SLOWER, 0.98)),
    "V2-1.0": ("mobilenet_v2_1.0_224", "mobilenet_v2_1.0_224.weights.h5", Goals(0.96, 20, NO_SLOWER, 0.98)),
    "V3-Small": ("mobilenet_v3_small_1.0_224", "mobilenet_v3_small_1.0_224.weights.h5", Goals(0.92, 12, 3.5, 0.98)),
}
SYMBOLS = {"V3-Small": "mobilenet_v3_small", "V3-Large": "mobilenet_v3_large"}
STARTS = {"mobilenet_v3_small": "mobilenet_v3_small_1.0_224.weights.h5"}
"""Published weights that training begins at; a family without them begins at random ones."""


def imagenet(title: str, data: Path, validation: Path) -> Subject:
    """Describe a published network."""
    network, weights, goals = IMAGENET[title]
    photographs = data / "imagenet"
    labels = read_labels(photographs / "classes.csv")
    return Subject(title, network, data / "models" / weights, photographs / "calibration", validation, labels, goals)


def crops(photographs: Path, count: int, out: Path) -> Path:
    """Write random crops of each photograph into the same class folders: .6 to 1 of its shorter side, half mirrored."""
    rng = np.random.default_rng(CROPS_SEED)
    for file in sorted(photographs.glob("*/*")):
        picture = decode(file)
        shorter = min(picture.shape[:2])
        folder = out / "crops" / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            side = int(rng.uniform(0.6, 1) * shorter)
            top, left = (int(rng.integers(0, extent - side + 1)) for extent in picture.shape[:2])
            crop = picture[top : top + side, left : left + side][:, :: rng.choice((1, -1))]
            Image.fromarray(np.ascontiguousarray(crop)).save(folder / f"{file.stem}-{number}.png", compress_level=1)
    shutil.copy(photographs.parent / "classes.csv", out)
    return out / "crops"


def symbols(title: str, data: Path | None, cache: Path) -> Subject:
    """Train a network on the symbols, unless the cache holds it, and describe it."""
    family = SYMBOLS[title]
    calibration, validation = int8_symbols.folders(cache)
    weights = cache / int8_symbols.weights_name(family)
    if not weights.exists():
        tell(f"{title}: train on symbols")
        start = ("--start", _given(data) / "models" / STARTS[family]) if family in STARTS else ()
        cost = run([sys.executable, HERE / "int8_symbols.py", family, weights, *start], None)
        if cost.failure:
            sys.exit(f"{title}: training failed: {cost.failure}")
    network = int8_symbols.spec(family).name
    goals = Goals(noise_excuses=False)
    return Subject(f"{title} symbols", network, weights, calibration, validation, Labels(LABELS), goals)


def measured(subject: Subject, methods: Sequence[str], folder: Path, options: argparse.Namespace) -> list[Row]:
    """Make all files of one network, then ask each what it answers and how long it takes."""
    dataset = labelled(subject.validation, subject.labels, limit=options.limit)
    makers = Makers(subject, folder, options.nncf_python)
    tell(f"{subject.title}: float Keras")
    reference = makers.reference(dataset.files)
    made: list[Made] = []
    for method in methods:
        tell(f"{subject.title}: make {METHODS[method][0]}")
        made += makers.make(method)
    answers: dict[Path, np.ndarray] = {}
    judged = [_judged(one, subject, reference, dataset, answers) for one in made]
    if options.repetitions:
        judged = _timed(judged, Schedule(0.3, 5, options.seconds, 50, repetitions=options.repetitions))
    keras = Row(subject.title, "Keras float32", "keras", "", compare(reference, reference, dataset.targets, "Keras"))
    return [keras, *_twins(judged, answers)]


def _judged(
    one: Made, subject: Subject, reference: np.ndarray, dataset: LabelledImages, answers: dict[Path, np.ndarray]
) -> Made:
    """Run a file on the photographs; its probabilities are kept in `answers`."""
    if one.path is None:
        return one
    tell(f"{subject.title}: run {one.row.method} {one.row.format}")
    size = ModelSpec.parse(subject.network).size
    try:
        with scorer(open_artifact(one.path, "-1..1")) as scores:
            rows = np.concatenate(list(scores(batches(dataset.files, Preprocessing(size, size), BATCH))))
        ours = load(one.path) is not None  # what has a manifest answers probabilities, what has none logits
        answers[one.path] = rows if ours else probabilities(rows)
        found = compare(reference, answers[one.path], dataset.targets, one.path.name)
    except (DeviceError, EdgenetError) as exc:
        return Made(dataclasses.replace(one.row, failure=str(exc)), None)
    return Made(dataclasses.replace(one.row, answers=found), one.path)


def _timed(made: Sequence[Made], schedule: Schedule) -> list[Made]:
    """Time all files of one network in one interleaved run."""
    paths = [one.path for one in made if one.path is not None]
    if not paths:
        return list(made)

    def progress(done: int, total: int, _: str) -> None:
        if done % len(paths) == 0:
            tell(f"latency: {done} of {total}")

    found = {one.path: one for one in measure(paths, (1,), schedule, bench=PythonBench(120), progress=progress)}
    stock = next((found[one.path] for one in made if one.path and one.row.method == STOCK), None)
    result = []
    for one in made:
        row = one.row
        if one.path is not None:
            latency = found[one.path]
            ratio = speedup(stock, latency).value if stock else None
            row = dataclasses.replace(row, median_ms=latency.median_ms, speed=ratio)
        result.append(Made(row, one.path))
    return result


def _twins(made: Sequence[Made], answers: dict[Path, np.ndarray]) -> list[Row]:
    """Compare the .onnx and the .tflite of each of edgenet's runs."""
    classes = {(one.row.method, one.row.format): answers[one.path].argmax(axis=1) for one in made if one.path}
    rows = []
    for one in made:
        pair = [classes.get((one.row.method, format_)) for format_ in ("tflite", "onnx")]
        if pair[0] is not None and pair[1] is not None:
            rows.append(dataclasses.replace(one.row, formats_agree=float((pair[0] == pair[1]).mean())))
        else:
            rows.append(one.row)
    return rows


def _validation(data: Path, count: int, scratch: Path) -> Path:
    photographs = data / "imagenet" / "validation"
    if not count:
        return photographs
    tell(f"cut {count} crops out of each photograph")
    return crops(photographs, count, scratch)


def tell(what: str) -> None:
    """Say on stderr what is being done; stdout is for the table."""
    print(what, file=sys.stderr, flush=True)


def _given(data: Path | None) -> Path:
    if data is None:
        sys.exit("no real weights and photographs: set EDGENET_TEST_DATA, or give --data DIR")
    return data.resolve()


def _chosen(text: str, known: Sequence[str], option: str) -> list[str]:
    names = text.split(",") if text else list(known)
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"{option}: {unknown[0]!r} is none of {', '.join(known)}")
    return names


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("EDGENET_TEST_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) if data else None, help="default: EDGENET_TEST_DATA")
    parser.add_argument("--symbols", action="store_true", help="networks trained here, not published ones")
    parser.add_argument("--networks", default="", help=f"of {','.join(IMAGENET)}; --symbols: of {','.join(SYMBOLS)}")
    parser.add_argument("--methods", default="", help=f"of {','.join(METHODS)}")
    parser.add_argument("--crops", type=int, metavar="N", help="evaluate on N crops of each photograph instead of it")
    parser.add_argument("--limit", type=int, help="pictures to evaluate, spread evenly; default: all")
    parser.add_argument("--nncf-python", type=Path, help="interpreter of an environment that has NNCF")
    parser.add_argument("--cache", type=Path, default=Path("build/int8"), help="of what --symbols trains")
    parser.add_argument("--keep", type=Path, help="folder for the files made; default: they are removed")
    parser.add_argument("--json", type=Path, help="write the rows here, after each network")
    parser.add_argument("--seconds", type=float, default=0.5, help="of timing, a file and repetition")
    parser.add_argument("--repetitions", type=int, default=10, help="of timing; 0 leaves it out")
    return parser.parse_args()


def main() -> int:
    """Print the table; exit 1 if a goal was missed."""
    options = _options()
    methods = _chosen(options.methods, list(METHODS), "--methods")
    titles = _chosen(options.networks, list(SYMBOLS if options.symbols else IMAGENET), "--networks")
    rows: list[Row] = []
    misses: list[str] = []
    photographs = "crops of photographs of ImageNet" if options.crops else "photographs of ImageNet"
    printed = table(f"on {'the pictures of symbols' if options.symbols else photographs}")
    with tempfile.TemporaryDirectory() as temporary:
        validation = Path() if options.symbols else _validation(_given(options.data), options.crops, Path(temporary))
        for title in titles:
            if options.symbols:
                subject = symbols(title, options.data, options.cache.resolve())
            else:
                subject = imagenet(title, _given(options.data), validation)
            folder = (options.keep or Path(temporary)).resolve() / subject.title.replace(" ", "-")
            folder.mkdir(parents=True, exist_ok=True)
            found = measured(subject, methods, folder, options)
            rows += found
            misses += missed(found, subject.goals)
            for row in found:
                add(printed, row)
            printed.add_section()
            if options.json:
                text = json.dumps([dataclasses.asdict(row) for row in rows], indent=2)
                options.json.write_text(text, encoding="utf-8")
    Console(width=WIDTH).print(printed)
    for row in rows:
        if row.failure:
            print(f"no answers: {row.network}, {row.method} {row.format}: {row.failure}")
    for line in misses:
        print(f"missed: {line}")
    return int(bool(misses))


if __name__ == "__main__":
    sys.exit(main())
