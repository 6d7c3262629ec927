"""Do model files answer what their float networks answer: run on the same images, and held against the gates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devices.runtimes.model_file import check_model_file
from edgenet.artifact import Artifact, Precision
from edgenet.dataset import batches
from edgenet.errors import EdgenetError, UsageError
from edgenet.image import Preprocessing
from edgenet.nets.network import Network, reopen
from edgenet.progress import Progress
from edgenet.proof.agreement import Agreement, Verdict, agree, judge, one_answer
from edgenet.proof.subjects import BATCH, Scorer, open_artifact, scorer

GENERATED_PER_CLASS, GENERATED_SEED = 10, 5


@dataclass(frozen=True, slots=True)
class Verification:
    """How a file's answers compare with its float network's, and whether that is good enough."""

    file: Path
    sha256: str
    precision: Precision
    agreement: Agreement
    verdict: Verdict
    one_answer: float  # share of images of which the float network says the same


def verify_files(
    paths: Sequence[Path],
    files: Sequence[Path],
    *,
    against: Network | None,
    input_range: str = "",
    trust: bool = False,
    progress: Progress,
) -> tuple[Verification, ...]:
    """Compare model files with the float network they were made from, on real images.

    Args:
        paths: .tflite and .onnx files.
        files: pictures.
        against: the float network; None builds the one that each manifest names.
        input_range: of foreign files that take floats.
        trust: run code that the user's Keras file brings.
        progress: told of each step.

    Raises:
        UsageError: a foreign file, and no network to compare it with.
    """
    references = _References(against, files, trust, progress)
    subjects = [open_artifact(check_model_file(path), input_range) for path in paths]  # all, before minutes of work
    for subject in subjects:
        references.check(subject)
    results = []
    for subject in subjects:
        path, manifest = subject.path, subject.manifest
        reference = references.scores(subject)
        with scorer(subject) as scores:
            steps = _counted(f"run {path.name}", len(files), progress)
            candidate = np.concatenate(list(steps(scores(batches(files, manifest.input.preprocessing, BATCH)))))
        quantized = manifest.output.dtype != "float32"
        sqnr_of = "probabilities" if quantized else "logits"
        agreement = agree(reference, candidate, name=path.name, sqnr_of=sqnr_of)  # type: ignore[arg-type]
        verdict = judge(agreement, manifest.precision)
        results.append(
            Verification(path, manifest.sha256, manifest.precision, agreement, verdict, one_answer(reference))
        )
    return tuple(results)


def generated_images(folder: Path) -> Path:
    """Fill a folder with pictures for a user who gives none."""
    from edgenet.symbols.generate import write_folder

    write_folder(folder, GENERATED_PER_CLASS, GENERATED_SEED)
    return folder


def _counted(what: str, total: int, progress: Progress) -> Scorer:
    def steps(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        done = 0
        progress(what, 0, total)
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            progress(what, done, total)

    return steps


class _References:
    """The float networks' answers on the images, each computed once."""

    def __init__(self, against: Network | None, files: Sequence[Path], trust: bool, progress: Progress) -> None:
        self._against = against
        self._files = files
        self._trust = trust
        self._progress = progress
        self._known: dict[tuple[object, Preprocessing], np.ndarray] = {}

    def check(self, subject: Artifact) -> None:
        """Refuse a file whose network nobody names."""
        if self._against is None and subject.manifest.source is None:
            raise UsageError(f"{subject.path} has no manifest, so its float network is unknown; give --against MODEL")

    def scores(self, subject: Artifact) -> np.ndarray:
        """Answer with float32 [images, classes] of the network behind this file, on pictures cut as for this file."""
        source = subject.manifest.source
        prep = subject.manifest.input.preprocessing
        key = (None if self._against else source, prep)
        if key not in self._known:
            self._progress("load the float network", 0, 0)
            network = self._against or reopen(source, trust=self._trust)  # type: ignore[arg-type]
            if (network.height, network.width) != (prep.height, prep.width):
                raise EdgenetError(
                    f"{subject.path} takes {prep.height}x{prep.width} and {network.name} "
                    f"{network.height}x{network.width}; compare it with the network it was made from"
                )
            steps = _counted(f"run {network.name} in float", len(self._files), self._progress)
            answers = steps(network.scores(batches(self._files, prep, 32)))
            self._known[key] = np.concatenate(list(answers))
        return self._known[key]
