"""Stop rules applied to kept trajectories: what a rule answers, and the steps that it needs.

Letters: B puzzles, K rollouts, D supervision steps.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptrm_jax.config import Stop
from ptrm_jax.errors import InputError

Bools = NDArray[np.bool_]
Ints = NDArray[np.int32]


class Replayed(NamedTuple):
    """What a rule does with each puzzle.

    Attributes:
      rollout: [B] int32, the rollout that answers; -1 where no step that ran is finite.
      step: [B] int32, its supervision step, from 1; 0 where there is none.
      q_logit: [B] float32, Q of that step; -inf where there is none.
      stopped: [B] bool, whether the rule's condition was met.
      rollout_steps: [B] int32, supervision steps that ran: those of the rollouts before, and of the
        one that stopped.
    """

    rollout: Ints
    step: Ints
    q_logit: NDArray[np.float32]
    stopped: Bools
    rollout_steps: Ints

    def of(self, scores: NDArray) -> NDArray:
        """[B] the entry of `scores`, [B, K, D], at the step that answers; 0 where there is none."""
        rows = np.arange(len(self.rollout))
        # Where there is no step, -1 is an entry like any other, and is not used.
        chosen = scores[rows, self.rollout, self.step - 1]
        return np.where(self.rollout >= 0, chosen, np.zeros_like(chosen))


def replay(
    q_logits: ArrayLike, finite: ArrayLike, stop: Stop, *, answers: ArrayLike | None = None
) -> Replayed:
    """What `solve_anytime` returns with a rule, from the trajectories of a solve that ran in full.

    Args:
      q_logits: [B, K, D] float32 logits.
      finite: [B, K, D] bool; a step whose Q is not finite counts as not finite whatever this says.
      stop: the rule.
      answers: [B, K, D] integers, equal for equal answers in all rollouts and steps of a puzzle,
        such as digests (not `Rollouts.answer_id`, which compares within a step); needed for
        ``stop.agree > 1``.

    Raises:
      InputError: an array does not fit, or `answers` is missing.
    """
    q, usable = _check_trajectories(q_logits, finite)
    fires = _firing_steps(q, usable, stop)
    num_puzzles, num_rollouts, depth = q.shape
    fired, ran = fires > 0, np.where(fires > 0, fires, depth)
    if stop.max_rollout_steps is not None:
        left = np.maximum(stop.max_rollout_steps - (np.cumsum(ran, axis=1) - ran), 0)
        fired, ran = fired & (ran <= left), np.minimum(ran, left)

    settled = np.array(fired)
    if stop.agree > 1:
        digests = _check_answers(answers, q.shape)
        # Where a rollout has not fired, step 0 is an entry like any other, and does not count.
        at = np.take_along_axis(digests, fires[..., None] - 1, axis=2)[..., 0]
        for k in range(num_rollouts):
            same = fired[:, : k + 1] & (at[:, : k + 1] == at[:, k, None])
            settled[:, k] &= same.sum(axis=1) >= stop.agree
    stopped = np.asarray(settled.any(axis=1))
    rows = np.arange(num_puzzles)
    rollout = settled.argmax(axis=1)
    step = fires[rows, rollout]
    steps = np.where(stopped, np.cumsum(ran, axis=1)[rows, rollout], ran.sum(axis=1))

    open_rows = np.flatnonzero(~stopped)
    reached = usable[open_rows] & (np.arange(1, depth + 1) <= ran[open_rows, :, None])
    best = np.where(reached, q[open_rows], -np.inf).reshape(len(open_rows), num_rollouts * depth)
    place = best.argmax(axis=1)  # the first of equals: the lower rollout, then the lower step
    rollout[open_rows], step[open_rows] = place // depth, place % depth + 1
    answered = stopped.copy()
    answered[open_rows] = reached.any(axis=(1, 2))
    return Replayed(
        rollout=np.where(answered, rollout, -1).astype(np.int32),
        step=np.where(answered, step, 0).astype(np.int32),
        q_logit=np.where(answered, q[rows, rollout, step - 1], -np.inf).astype(np.float32),
        stopped=stopped,
        rollout_steps=steps.astype(np.int32),
    )


def _firing_steps(q: NDArray, usable: Bools, stop: Stop) -> NDArray[np.intp]:
    """[B, K] the step, from 1, at which a rollout that runs on fires; 0 where it does not."""
    depth, patience = q.shape[2], stop.patience
    if patience > depth:
        return np.zeros(q.shape[:2], np.intp)
    with np.errstate(over="ignore"):
        reaches = usable & (q >= np.float32(stop.q_logit))
    fires = np.lib.stride_tricks.sliding_window_view(reaches, patience, axis=2).all(axis=-1)
    # Entry i is of step i + patience.
    fires = fires & (np.arange(patience, depth + 1) >= stop.min_depth)
    return np.where(fires.any(axis=2), fires.argmax(axis=2) + patience, 0)


def _check_trajectories(q_logits: ArrayLike, finite: ArrayLike) -> tuple[NDArray, Bools]:
    q, flags = np.asarray(q_logits), np.asarray(finite)
    if q.ndim != 3 or 0 in q.shape[1:] or not np.issubdtype(q.dtype, np.floating):
        raise InputError(
            "q_logits must be [B, K, D] float with K >= 1 and D >= 1, those of all steps; got "
            f"{q.dtype} {q.shape}; keep them with Save(q_logits=True), or take a sweep's"
        )
    if flags.shape != q.shape or flags.dtype != np.bool_:
        raise InputError(
            f"finite must be bool with the shape of q_logits, {q.shape}; got {flags.dtype} "
            f"{flags.shape}; pass the trajectory's"
        )
    return q.astype(np.float32), flags & np.isfinite(q)


def _check_answers(answers: ArrayLike | None, shape: tuple[int, ...]) -> NDArray:
    ids = np.asarray(answers)
    if ids.shape != shape or not np.issubdtype(ids.dtype, np.integer):
        got = "None" if answers is None else f"{ids.dtype} {ids.shape}"
        raise InputError(
            f"answers must be integer with the shape of q_logits, {shape}, for agree > 1; got "
            f"{got}; pass digests of the answers"
        )
    return ids
