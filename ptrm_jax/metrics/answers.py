"""Answers against labels, and equal answers.

Letters: B puzzles, K rollouts, S tokens. Accuracies are fractions in [0, 1].
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptrm_jax.errors import InputError

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


def token_mask(labels: ArrayLike, ignore_label: int | None = None) -> Bools:
    """Positions that count.

    Args:
      labels: [B, S] integer.
      ignore_label: the label of positions that do not count; None counts every position.

    Returns:
      [B, S] bool.

    Raises:
      ValueError: `labels` is not a [B, S] array of integers.
    """
    labels = _integers("labels", labels, 2, "[B, S]")
    return (
        np.not_equal(labels, ignore_label)
        if ignore_label is not None
        else np.ones(labels.shape, bool)
    )


def valid_rows(labels: ArrayLike, ignore_label: int | None = None) -> Bools:
    """Puzzles with at least one position that counts; the others are padding.

    Args:
      labels: [B, S] integer.
      ignore_label: as in `token_mask`.

    Returns:
      [B] bool.

    Raises:
      ValueError: `labels` is not a [B, S] array of integers.
    """
    return np.asarray(token_mask(labels, ignore_label).any(axis=1))


def exact(answers: ArrayLike, labels: ArrayLike, *, ignore_label: int | None = None) -> Bools:
    """Whether an answer is right at every position that counts.

    Args:
      answers: [B, ..., S] integer; between B and S any dimensions, such as K or K, D.
      labels: [B, S] integer.
      ignore_label: as in `token_mask`.

    Returns:
      [B, ...] bool; False for a padding row (see `valid_rows`), which no answer solves.

    Raises:
      ValueError: the arrays are not integers, or their B or S differ.
    """
    right, mask = _compare(answers, labels, ignore_label)
    right |= ~mask
    return np.asarray(right.all(axis=-1) & mask.any(axis=-1))


def cell_accuracy(
    answers: ArrayLike, labels: ArrayLike, *, ignore_label: int | None = None
) -> Floats:
    """Fraction of the positions that count at which an answer is right.

    Args:
      answers: [B, ..., S] integer; between B and S any dimensions, such as K or K, D.
      labels: [B, S] integer.
      ignore_label: as in `token_mask`.

    Returns:
      [B, ...] float64 in [0, 1]; NaN for a padding row (see `valid_rows`).

    Raises:
      ValueError: the arrays are not integers, or their B or S differ.
    """
    right, mask = _compare(answers, labels, ignore_label)
    right &= mask
    num_counted = mask.sum(axis=-1).astype(np.float64)
    return right.sum(axis=-1) / np.where(num_counted > 0, num_counted, np.nan)


def answer_ids(answers: ArrayLike) -> Ints:
    """Names every answer by the lowest rollout id that gave it, token for token.

    Args:
      answers: [B, K, S] integer.

    Returns:
      [B, K] int32 in 0..K-1; equal ids mean equal answers, exactly (no hash decides).

    Raises:
      ValueError: `answers` is not a [B, K, S] array of integers.
    """
    answers = _integers("answers", answers, 3, "[B, K, S]")
    ids = np.empty(answers.shape[:2], np.int32)
    for row, rollouts in zip(ids, answers, strict=True):
        # A dict compares keys that share a hash, so the bytes themselves decide.
        first: dict[bytes, int] = {}
        row[:] = [first.setdefault(answer.tobytes(), k) for k, answer in enumerate(rollouts)]
    return ids


def digest_ids(digests: NDArray) -> Ints:
    """`answer_ids` of answers that are given by their digests.

    Args:
      digests: [B, K, ...] integer.

    Returns:
      [B, K, ...] int32: the lowest rollout id with the same digest, step by step.
    """
    order = np.argsort(digests, axis=1, kind="stable")
    ranked = np.take_along_axis(digests, order, axis=1)
    # Within a run of equal digests a stable sort has the lowest id first.
    starts = np.zeros(digests.shape, np.intp)
    rank = np.arange(1, digests.shape[1]).reshape(-1, *[1] * (digests.ndim - 2))
    starts[:, 1:] = np.where(ranked[:, 1:] != ranked[:, :-1], rank, 0)
    lowest = np.take_along_axis(order, np.maximum.accumulate(starts, axis=1), axis=1)
    ids = np.empty(digests.shape, np.int32)
    np.put_along_axis(ids, order, lowest.astype(np.int32), axis=1)
    return ids


def _compare(
    answers: ArrayLike, labels: ArrayLike, ignore_label: int | None
) -> tuple[Bools, Bools]:
    """Positions where [B, ..., S] answers agree with labels, and the mask that broadcasts to it."""
    labels = _integers("labels", labels, 2, "[B, S]")
    answers = _integers("answers", answers, None, "[B, ..., S]")
    if answers.ndim < 2 or (answers.shape[0], answers.shape[-1]) != labels.shape:
        raise InputError(
            f"answers must be [B, ..., S] with the B and S of labels {labels.shape}; "
            f"got {answers.shape}; pass the rows and positions that both have"
        )
    between = tuple(range(1, answers.ndim - 1))
    mask = np.expand_dims(token_mask(labels, ignore_label), between)
    return answers == np.expand_dims(labels, between), mask


def _integers(name: str, array: ArrayLike, ndim: int | None, shape: str) -> NDArray:
    array = np.asarray(array)
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name} must be {shape} integer tokens; got {array.dtype}; argmax them")
    if ndim is not None and array.ndim != ndim:
        raise InputError(f"{name} must be {shape}; got shape {array.shape}; reshape to {shape}")
    return array
