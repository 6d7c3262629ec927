from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenet.errors import EdgenetError
from edgenet.proof.agreement import GATES, Agreement, agree, judge, one_answer, proves_little

Floats = npt.NDArray[np.float32]


def softmax(logits: npt.NDArray[np.float64]) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def logits(images: int = 50, classes: int = 20, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, 3, (images, classes))


def agreement(top1: float = 1.0, max_abs: float = 0.0) -> Agreement:
    return Agreement(100, max_abs, 0.0, 1.0, math.inf, "logits", top1, 1.0)


def test_equal_arrays_agree_wholly() -> None:
    scores = softmax(logits())
    result = agree(scores, scores.copy(), name="m")
    assert result.cosine == pytest.approx(1, abs=1e-12)
    assert result == Agreement(50, 0.0, 0.0, result.cosine, math.inf, "logits", 1.0, 1.0)


def test_figures_by_hand() -> None:
    reference = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], np.float32)
    candidate = np.array([[0.2, 0.7, 0.1], [0.1, 0.8, 0.1]], np.float32)
    result = agree(reference, candidate, name="m", sqnr_of="probabilities")
    assert result.images == 2
    assert result.max_abs == pytest.approx(0.5)
    assert result.mean_abs == pytest.approx(1 / 6)
    assert result.cosine == pytest.approx((0.29 / 0.54 + 1) / 2)
    assert result.sqnr_db == pytest.approx(10 * math.log10((0.54 + 0.66) / 0.5), abs=1e-5)
    assert result.top1_agreement == 0.5
    assert result.top5_agreement == 1.0  # three classes: all of them, in any order


def test_top5_counts_the_classes_in_common() -> None:
    reference = np.array([[0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05]], np.float32)
    assert agree(reference, reference[:, [0, 1, 2, 5, 6, 3, 4]], name="m").top5_agreement == pytest.approx(3 / 5)
    assert agree(reference, reference[:, ::-1], name="m").top5_agreement == pytest.approx(3 / 5)


@settings(deadline=None)
@given(st.floats(5, 50), st.integers(0, 1000))
def test_the_sqnr_of_logits_is_the_noise_put_in(decibels: float, seed: int) -> None:
    """Softmax loses only a shift: the SQNR comes back from the probabilities."""
    signal = logits(seed=seed)
    signal -= signal.mean(axis=1, keepdims=True)
    noise = np.random.default_rng(seed + 1).normal(0, 1, signal.shape)
    noise -= noise.mean(axis=1, keepdims=True)
    noise *= math.sqrt((signal**2).sum() / (noise**2).sum()) * 10 ** (-decibels / 20)
    result = agree(softmax(signal), softmax(signal + noise + 5), name="m")
    assert result.sqnr_db == pytest.approx(decibels, abs=0.01)


def test_vanished_probabilities_count_as_the_smallest_float() -> None:
    reference, candidate = softmax(np.array([[0.0, 200.0]])), np.array([[0.0, 1.0]], np.float32)
    assert agree(reference, candidate, name="m").sqnr_db == math.inf
    small = agree(reference, np.array([[1e-30, 1.0]], np.float32), name="m")  # half of ln(2^-126), and of ln(1e-30)
    assert small.sqnr_db == pytest.approx(20 * math.log10(43.668 / (43.668 - 34.539)), abs=1e-3)
    quantised = np.array([[0.0, 0.996]], np.float32)
    assert agree(reference, quantised, name="m", sqnr_of="probabilities").sqnr_db == pytest.approx(47.96, abs=0.01)


def test_rows_of_zeros_have_a_cosine() -> None:
    zero, some = np.zeros((1, 3), np.float32), np.array([[0.5, 0.5, 0]], np.float32)
    assert agree(some, zero, name="m").cosine == 0
    assert agree(zero, zero, name="m").cosine == 1
    assert agree(zero, some, name="m", sqnr_of="probabilities").sqnr_db == -math.inf


def test_ties_go_to_the_lower_index_on_both_sides() -> None:
    even = np.full((1, 1000), 0.001, np.float32)  # many: short rows are sorted stably by any sort
    first, last = even.copy(), even.copy()
    first[0, :5] += 1e-6
    last[0, -1] += 1e-6
    assert agree(even, first, name="m").top1_agreement == 1
    assert agree(even, first, name="m").top5_agreement == 1
    assert agree(even, last, name="m").top1_agreement == 0
    assert agree(even, last, name="m").top5_agreement == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("candidate", "complaint"),
    [
        (np.full((2, 3), np.nan, np.float32), r"^x\.onnx: answers NaN or infinity"),
        (np.full((2, 3), np.inf, np.float32), r"^x\.onnx: answers NaN or infinity"),
        (np.full((2, 4), 0.25, np.float32), r"^x\.onnx: answers \[2, 4\] where the reference answers \[2, 3\]"),
        (np.full((1, 3), 0.25, np.float32), r"answers \[1, 3\]"),
        (
            np.array([[-4, 0, 9]] * 2, np.float32),
            r"values from -4 to 9, no probabilities; end the model with a softmax",
        ),
        (np.array([[-0.002, 0.5, 0.5]] * 2, np.float32), r"values from -0.002 to 0.5, no probabilities"),
        (np.array([[0, 0, 1.002]] * 2, np.float32), r"values from 0 to 1.002, no probabilities"),
    ],
)
def test_what_cannot_be_compared_is_refused(candidate: Floats, complaint: str) -> None:
    reference = np.full((2, 3), 1 / 3, np.float32)
    with pytest.raises(EdgenetError, match=complaint):
        agree(reference, candidate, name="x.onnx")


def test_what_a_softmax_of_16_bits_overshoots_by_is_no_fault() -> None:
    reference = np.array([[0, 0, 1]], np.float32)
    off = agree(reference, reference + np.array([-5e-4, 0, 5e-4], np.float32), name="x.onnx").max_abs
    assert off == pytest.approx(5e-4, rel=1e-3)


def test_the_reference_may_be_at_fault_too() -> None:
    good = np.full((2, 3), 1 / 3, np.float32)
    with pytest.raises(EdgenetError, match=r"^the reference: answers NaN"):
        agree(good * np.float32(np.nan), good, name="x.onnx")
    with pytest.raises(EdgenetError, match=r"answers \[0, 3\]"):
        agree(good[:0], good[:0], name="x.onnx")


@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [
        ("float32", 1.0, 1e-4),
        ("float16", 0.98, 5e-2),
        ("int16x8", 0.97, None),
        ("int8", 0.9, None),
        ("unknown", 0.9, None),
        ("dynamic", 0.85, None),
    ],
)
def test_each_gate_passes_at_its_figure_and_not_beyond(precision: str, least: float, most: float | None) -> None:
    at_the_gate = agreement(least, most or 0.9)
    assert judge(at_the_gate, precision).passed
    assert judge(at_the_gate, precision).reasons == ()
    assert not judge(agreement(least - 1e-6, most or 0.9), precision).passed
    if most is not None:
        missed = judge(agreement(least - 1e-6, most * 1.01), precision)
        assert not missed.passed
        assert len(missed.reasons) == 2


def test_reasons_say_the_figures_and_never_round_to_the_gate() -> None:
    assert judge(agreement(0.479), "int8").reasons == ("top-1 agreement 47.9 % < 90 %",)
    assert judge(agreement(0.8999), "int8").reasons == ("top-1 agreement 89.9 % < 90 %",)
    assert judge(agreement(0.9999), "float32").reasons == ("top-1 agreement 99.9 % < 100 %",)
    assert judge(agreement(1.0, 1.004e-4), "float32").reasons == ("max abs error 0.0001004 > 0.0001",)


def test_a_precision_without_a_gate_is_refused() -> None:
    with pytest.raises(EdgenetError, match="'int4'; known are float32, float16, int16x8, int8, unknown, dynamic"):
        judge(agreement(), "int4")
    assert len({gate.precision for gate in GATES}) == len(GATES)


def test_images_of_one_class_prove_little() -> None:
    """A file that always names that class passes on them."""
    reference = softmax(np.tile([[0.0, 3.0]], (20, 1)))
    reference[0] = reference[0, ::-1]
    constant = np.tile(reference[1], (20, 1))
    assert judge(agree(reference, constant, name="m"), "int8").passed
    assert one_answer(reference) == 0.95
    assert one_answer(np.array([[0.5, 0.3, 0.2], [0.6, 0.1, 0.3], [0.2, 0.7, 0.1]])) == pytest.approx(2 / 3)
    assert proves_little(0.95, "int8")
    (least,) = (gate.top1_agreement for gate in GATES if gate.precision == "int8")
    assert proves_little(least, "int8")  # just that passes
    assert not proves_little(0.85, "int8")
    assert not proves_little(1.0, "float32")  # every probability counts there
