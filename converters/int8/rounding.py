"""GPTQ: weights rounded one after another, each taking up what rounding those before it has done to the answer.

Source: Frantar et al. 2022, GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers (arXiv
2210.17323), algorithm 1, with columns in the order of their variance. The covariance stands where the paper has the
second moment: the mean is bias correction's to repair.
"""

from __future__ import annotations

import numpy as np

from converters.int8.arithmetic import SMALLEST_SCALE

DAMPING = 0.01
"""Of the mean variance, as in the paper."""

BLOCK = 64


def gptq(weights: np.ndarray, covariance: np.ndarray, scale: np.ndarray, damping: float = DAMPING) -> np.ndarray:
    """Round the weights of a matrix product.

    Args:
        weights: [outputs, inputs].
        covariance: of the inputs, [inputs, inputs].
        scale: real value of one step of each output's weights, [outputs]; its largest weight is at 127 steps.
        damping: added to the diagonal, of its mean.

    Returns:
        Whole numbers of steps, -127..127, [outputs, inputs]; each output's largest weight stays at 127 steps, so that
        whoever rounds the result finds the same scale.
    """
    inputs = len(covariance)
    order = np.argsort(-np.diag(covariance))
    upper = _inverse_factor(covariance[order][:, order], damping)
    left = (weights / scale[:, np.newaxis])[:, order].astype(np.float64)
    whole = np.zeros_like(left)
    for start in range(0, inputs, BLOCK):
        stop = min(start + BLOCK, inputs)
        errors = np.zeros((len(left), stop - start))
        for i in range(start, stop):
            whole[:, i] = np.clip(np.rint(left[:, i]), -127, 127)
            errors[:, i - start] = (left[:, i] - whole[:, i]) / upper[i, i]
            left[:, i + 1 : stop] -= np.outer(errors[:, i - start], upper[i, i + 1 : stop])
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    return _with_scale_kept(whole[:, np.argsort(order)], weights)


def gptq_depthwise(weights: np.ndarray, covariances: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Round the weights of a depthwise convolution, a matrix product for each channel.

    Args:
        weights: [channels, taps].
        covariances: of the pixels under the taps, [channels, taps, taps].
        scale: as for gptq, [channels].
    """
    taps = weights.shape[1]
    variance = np.trace(covariances, axis1=1, axis2=2) / taps
    damped = covariances + (DAMPING * variance + 1e-12)[:, np.newaxis, np.newaxis] * np.eye(taps)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    left = (weights / scale[:, np.newaxis]).astype(np.float64)
    whole = np.zeros_like(left)
    for i in range(taps):
        whole[:, i] = np.clip(np.rint(left[:, i]), -127, 127)
        error = (left[:, i] - whole[:, i]) / upper[:, i, i]
        left[:, i + 1 :] -= error[:, np.newaxis] * upper[:, i, i + 1 :]
    return _with_scale_kept(whole, weights)


def _inverse_factor(covariance: np.ndarray, damping: float) -> np.ndarray:
    """Return the upper Cholesky factor of the damped covariance's inverse."""
    diagonal = np.diag(covariance)
    damped = covariance + np.diag(np.where(diagonal > 0, 0, 1) + damping * max(diagonal.mean(), 1e-12))
    factor: np.ndarray = np.linalg.cholesky(np.linalg.inv(damped)).T
    return factor


def _with_scale_kept(whole: np.ndarray, weights: np.ndarray) -> np.ndarray:
    largest = np.abs(weights).argmax(axis=1)
    rows = np.flatnonzero(np.abs(whole).max(axis=1) < 127)
    rows = rows[np.abs(weights).max(axis=1)[rows] > 127 * SMALLEST_SCALE]
    whole[rows, largest[rows]] = 127 * np.sign(weights[rows, largest[rows]])
    return whole
