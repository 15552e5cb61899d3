"""Stop rules applied to kept trajectories: what a rule answers, and the steps that it needs.

Letters: B puzzles, K rollouts, D supervision steps.
"""

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptrm_jax.config import Stop, check_int
from ptrm_jax.errors import InputError
from ptrm_jax.metrics.logistic import Logistic, fit_logistic

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
    return _conclude(q, usable, _course(q, usable, stop, answers))


class _Course(NamedTuple):
    """What the rollouts of each puzzle do under a rule, if all are started.

    Attributes:
      fires: [B, K] the step, from 1, at which a rollout that runs on fires; 0 where it does not.
      ran: [B, K] steps that run, also in rollouts after the one that stops the puzzle.
      settles: [B, K] bool, whether the rule's condition is met by this rollout's firing.
    """

    fires: NDArray[np.intp]
    ran: NDArray[np.intp]
    settles: Bools


def _course(q: NDArray, usable: Bools, stop: Stop, answers: ArrayLike | None) -> _Course:
    fires = _firing_steps(q, usable, stop)
    fired, ran = fires > 0, np.where(fires > 0, fires, q.shape[2])
    if stop.max_rollout_steps is not None:
        left = np.maximum(stop.max_rollout_steps - (np.cumsum(ran, axis=1) - ran), 0)
        fired, ran = fired & (ran <= left), np.minimum(ran, left)
    settles = np.array(fired)
    if stop.agree > 1:
        digests = _check_answers(answers, q.shape)
        # Where a rollout has not fired, step 0 is an entry like any other, and does not count.
        at = np.take_along_axis(digests, fires[..., None] - 1, axis=2)[..., 0]
        for k in range(q.shape[1]):
            same = fired[:, : k + 1] & (at[:, : k + 1] == at[:, k, None])
            settles[:, k] &= same.sum(axis=1) >= stop.agree
    return _Course(fires, ran, settles)


def _conclude(q: NDArray, usable: Bools, course: _Course) -> Replayed:
    """The answers, once it is known what runs."""
    fires, ran, settles = course
    num_puzzles, num_rollouts, depth = q.shape
    stopped, rollout = np.asarray(settles.any(axis=1)), settles.argmax(axis=1)
    rows = np.arange(num_puzzles)
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


# A budget for all puzzles together.


def fit_chance(
    q_logits: ArrayLike, finite: ArrayLike, stop: Stop, *, answers: ArrayLike | None = None
) -> Logistic:
    """The chance that one more rollout stops a puzzle, from the Q of its rollouts so far.

    A logistic regression over all moments at which a puzzle has rollouts behind it, has not stopped
    and starts another. Its features are the logarithm of the number of rollouts so far, the highest
    Q of any of their steps, and the mean over them of each one's highest Q. Neither they nor the
    fit need labels. What it says holds for one checkpoint and one sigma, and for such puzzles.

    Args:
      q_logits: [B, K, D] float32 logits, of calibration puzzles.
      finite: [B, K, D] bool.
      stop: the rule.
      answers: as for `replay`.

    Returns:
      The chance, for `allocate`.

    Raises:
      InputError: as `replay`, or no second rollout stops a puzzle, or each does.
    """
    q, usable = _check_trajectories(q_logits, finite)
    course = _course(q, usable, stop, answers)
    settled = np.cumsum(course.settles, axis=1) > 0
    asked = course.ran > 0
    asked[:, 1:] &= ~settled[:, :-1]
    asked[:, 0] = False
    return fit_logistic(_so_far(q, usable, course.ran)[asked], course.settles[asked])


def allocate(
    q_logits: ArrayLike,
    finite: ArrayLike,
    stop: Stop,
    chance: Logistic,
    total_steps: int,
    *,
    answers: ArrayLike | None = None,
) -> Replayed:
    """What a rule answers when all puzzles share a budget, which goes where it may help.

    Every puzzle gets its first rollout. Then, again and again, of the puzzles that have not stopped
    the one whose next rollout has the largest chance of stopping it gets that rollout; ties go to
    the puzzle with fewer rollouts, then to the first. A rollout starts only if its D steps are left
    of the budget. So a hopeless puzzle is given up when others have better chances, not at a cap.

    Args:
      q_logits: [B, K, D] float32 logits.
      finite: [B, K, D] bool.
      stop: the rule; its `max_rollout_steps` holds as well.
      chance: of `fit_chance`, on other puzzles.
      total_steps: supervision steps of all rollouts of all puzzles.
      answers: as for `replay`.

    Raises:
      InputError: as `replay`, or the budget does not suffice for the first rollouts;
        the message says what they take.
    """
    q, usable = _check_trajectories(q_logits, finite)
    num_puzzles, num_rollouts, depth = q.shape
    course = _course(q, usable, stop, answers)
    chances = chance(_so_far(q, usable, course.ran))
    settled = np.cumsum(course.settles, axis=1) > 0
    started = np.ones(num_puzzles, int)
    check_int("total_steps", total_steps, int(course.ran[:, 0].sum()))
    left = total_steps - int(course.ran[:, 0].sum())

    def offer(b: int) -> tuple[float, int, int]:
        return -chances[b, started[b]], int(started[b]), b

    def is_open(b: int) -> bool:
        k = started[b]
        return k < num_rollouts and not settled[b, k - 1] and course.ran[b, k] > 0

    offers = [offer(b) for b in range(num_puzzles) if is_open(b)]
    heapq.heapify(offers)
    while offers and left >= depth:
        _, k, b = heapq.heappop(offers)
        left -= int(course.ran[b, k])
        started[b] += 1
        if is_open(b):
            heapq.heappush(offers, offer(b))
    runs = np.arange(num_rollouts) < started[:, None]
    return _conclude(q, usable, _Course(course.fires, course.ran * runs, course.settles & runs))


_NO_Q = 30.0  # beyond what a Q head says


def _so_far(q: NDArray, usable: Bools, ran: NDArray[np.intp]) -> NDArray[np.float64]:
    """[B, K, 3] the features of `fit_chance` before each rollout starts; of the first, zeros."""
    num_rollouts, depth = q.shape[1:]
    reached = usable & (np.arange(1, depth + 1) <= ran[..., None])
    highest = np.where(reached, q, -_NO_Q).max(axis=2).clip(-_NO_Q, _NO_Q).astype(np.float64)
    number = np.arange(1, num_rollouts)
    known = np.zeros((*q.shape[:2], 3))
    known[:, 1:, 0] = np.log(number)
    known[:, 1:, 1] = np.maximum.accumulate(highest, axis=1)[:, :-1]
    known[:, 1:, 2] = np.cumsum(highest, axis=1)[:, :-1] / number
    return known


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
