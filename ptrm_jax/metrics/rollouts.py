"""What rollouts scored: the arrays that every estimator reads, checked once.

Letters: B puzzles, K rollouts, D supervision steps.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptrm_jax.config import Read, check_choice
from ptrm_jax.errors import InputError
from ptrm_jax.metrics.answers import digest_ids

Bools = NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False)
class Rollouts:
    """K rollouts of each of B puzzles, scored after one supervision step or after each of D.

    All arrays have the shape [B, K] or, with steps, [B, K, D]. An estimator takes one step: `at`.

    Attributes:
      correct: bool, the whole answer is right.
      q_logit: float, halt logits; the larger, the better the rollout ranks.
      finite: bool, rollouts that may be chosen and may vote; by default those with a finite Q. The
        solver's flags look at the logits of the answer too. A NaN of Q is never finite.
      valid: bool, the answer satisfies the rules of its puzzle; None where no rules are known.
      answer_id: integer, the lowest rollout id with the same answer (`answer_ids`). Sweeps compare
        64-bit digests of answers instead: two different answers have equal ids with probability
        2^-64.
      cell_accuracy: float, fraction of the counted positions that are right.
      digest: uint64, of the answer.

    Raises:
      InputError: a shape or a dtype does not fit; `answer_id` names another rollout than the first
        with its answer, or rollouts that are not equally correct.
    """

    correct: Bools
    q_logit: NDArray
    finite: Bools | None = None
    valid: Bools | None = None
    answer_id: NDArray | None = None
    cell_accuracy: NDArray | None = None
    digest: NDArray | None = None

    def __post_init__(self) -> None:
        correct = check_correct(self.correct)
        q_logit = np.asarray(self.q_logit)
        if q_logit.shape != correct.shape or not np.issubdtype(q_logit.dtype, np.floating):
            raise InputError(
                f"q_logit must be float with the shape [B, K] of correct, {correct.shape}; got "
                f"{q_logit.dtype} {q_logit.shape}; pass one Q per rollout"
            )
        if self.finite is None:
            finite = np.isfinite(q_logit)
        else:  # no flag makes a NaN comparable
            finite = _flags("finite", self.finite, correct) & ~np.isnan(q_logit)
        fields = {"correct": correct, "q_logit": q_logit, "finite": finite}
        if self.valid is not None:
            fields["valid"] = _flags("valid", self.valid, correct)
        if self.answer_id is not None:
            fields["answer_id"] = _first_of_answer(self.answer_id, correct)
        for name, array in fields.items():
            object.__setattr__(self, name, array)

    @property
    def eligible(self) -> Bools:
        """`finite`, which is never None once built."""
        assert self.finite is not None
        return self.finite

    def at(self, depth: int) -> "Rollouts":
        """The rollouts after step `depth` (1..D): arrays [B, K]."""
        return self.part(slice(None), slice(None), depth - 1)

    def read(self, read: Read) -> "Rollouts":
        """The rollouts read after their last step, or where their Q was highest.

        Args:
          read: "last" for the rollouts as they are. "best": entry d is the step of highest finite Q
            among the first d, the earliest of equals; it is not finite where none of them is.

        Returns:
          Rollouts of the same shape, [B, K, D]. `answer_id` compares digests, since rollouts are
          read at different steps; it is None without them.

        Raises:
          InputError: `read` is unknown, or the rollouts have no steps.
        """
        check_choice("read", read, Read)
        if self.correct.ndim != 3:
            raise InputError(
                f"rollouts must have steps, [B, K, D], to be read; got {self.correct.shape}; keep "
                "the scores of all steps"
            )
        if read == "last":
            return self
        num_puzzles, num_rollouts, _ = self.correct.shape
        index = best_steps(self.q_logit, self.eligible)
        rows = np.arange(num_puzzles)[:, None, None], np.arange(num_rollouts)[:, None]
        gathered = self.part(*rows, index)
        ids = None if gathered.digest is None else digest_ids(gathered.digest)
        object.__setattr__(gathered, "answer_id", ids)
        return gathered

    def up_to(self, depth: int) -> "Rollouts":
        """Steps 1..depth: those of a run with D = depth.

        Raises:
          InputError: there are no steps, or `depth` is outside 1..D.
        """
        if self.correct.ndim != 3 or not 1 <= depth <= self.correct.shape[2]:
            raise InputError(
                f"depth must be a whole number in 1..D of rollouts [B, K, D]; got {depth!r} for "
                f"{self.correct.shape}; run more steps or lower depth"
            )
        return self.part(slice(None), slice(None), slice(depth))

    def scored_by_rules(self) -> "Rollouts":
        """The same rollouts with `valid` in the place of `correct`.

        Raises:
          InputError: `valid` is missing.
        """
        if self.valid is None:
            raise InputError(
                "valid must be there to score by the rules; got None; check the answers with a "
                "task's satisfies_rules"
            )
        scored = self.part()
        object.__setattr__(scored, "correct", self.valid)
        return scored

    def part(self, *index: object) -> "Rollouts":
        """The rollouts at an index of [B, K] or [B, K, D], such as ``part(rows, slice(4))``."""
        # What holds of the whole holds of its parts: nothing is checked again.
        part = object.__new__(Rollouts)
        for field in dataclasses.fields(self):
            array = getattr(self, field.name)
            object.__setattr__(part, field.name, None if array is None else array[index])
        return part


def best_steps(q_logit: NDArray, finite: Bools) -> NDArray[np.intp]:
    """The step of highest finite Q among the first d of each rollout, as an index from 0.

    Args:
      q_logit: [..., D] float.
      finite: [..., D] bool.

    Returns:
      [..., D], entry d - 1 for the first d steps; the earliest of equals, and 0 where none of them
      is finite.
    """
    index = np.zeros(q_logit.shape, np.intp)
    best, found = q_logit[..., 0], finite[..., 0]
    for d in range(1, q_logit.shape[-1]):
        better = finite[..., d] & (~found | (q_logit[..., d] > best))
        index[..., d] = np.where(better, d, index[..., d - 1])
        best = np.where(better, q_logit[..., d], best)
        found = found | better
    return index


def check_correct(correct: ArrayLike) -> Bools:
    """`correct` as an array, [B, K, ...] bool.

    Raises:
      InputError: it is not.
    """
    correct = np.asarray(correct)
    if correct.ndim not in (2, 3) or not correct.shape[1] or correct.dtype != np.bool_:
        raise InputError(
            f"correct must be [B, K] bool with K >= 1; got {correct.dtype} {correct.shape}; "
            "compute it with metrics.exact"
        )
    return correct


def _flags(name: str, flags: ArrayLike, correct: Bools) -> Bools:
    flags = np.asarray(flags)
    if flags.shape != correct.shape or flags.dtype != np.bool_:
        raise InputError(
            f"{name} must be bool with the shape [B, K] of correct, {correct.shape}; "
            f"got {flags.dtype} {flags.shape}; pass one flag per rollout, or None"
        )
    return flags


def _first_of_answer(answer_id: ArrayLike, correct: Bools) -> NDArray:
    """Checked answer ids: each names the first rollout of its answer, all equally correct."""
    answer_id = np.asarray(answer_id)
    if answer_id.shape != correct.shape or not np.issubdtype(answer_id.dtype, np.integer):
        raise InputError(
            f"answer_id must be integer with the shape [B, K] of correct, {correct.shape}; "
            f"got {answer_id.dtype} {answer_id.shape}; compute it with metrics.answer_ids"
        )
    ids = np.arange(correct.shape[1]).reshape(-1, *[1] * (correct.ndim - 2))
    in_range = (answer_id >= 0) & (answer_id <= ids)
    first = np.where(in_range, answer_id, 0)
    fits = in_range & (np.take_along_axis(answer_id, first, axis=1) == answer_id)
    if not fits.all():
        b, k, *step = np.argwhere(~fits)[0]
        raise InputError(
            "answer_id must name the lowest rollout id with the same answer; got "
            f"{answer_id[b, k, *step]} at puzzle {b}, rollout {k}; compute it with "
            "metrics.answer_ids"
        )
    clash = np.take_along_axis(correct, first, axis=1) != correct
    if clash.any():
        b, k, *step = np.argwhere(clash)[0]
        raise InputError(
            f"rollouts with one answer_id must be equally correct; puzzle {b}, rollouts "
            f"{answer_id[b, k, *step]} and {k} are not; compute both arrays from the same answers"
        )
    return answer_id
