"""Answers of ARC-AGI: the vote over augmentations, pass@k, accuracy row by row, submissions.

`vote` crops every answer, undoes its augmentation and ranks the distinct grids of a test input by
votes, then by the mean sigmoid of the Q of those who voted. With one rollout per row this is
upstream's evaluator (``evaluators/arc.py``, commit e7b6871, one process); PTRM takes the best Q of
each row's K rollouts first (arXiv 2605.19943). Rows need not be complete: what was not solved does
not vote.

Letters: N rows of an `ArcSet`, K rollouts, S = 900 tokens, T tasks. Accuracies are fractions.
"""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from ptrm_jax import metrics
from ptrm_jax.errors import InputError
from ptrm_jax.files import write_text
from ptrm_jax.metrics import Interval
from ptrm_jax.tasks.arc import PAD, SEQ_LEN, ArcSet, Task, pack, restore, unpack

RULES = ("best_q", "all", "q_weighted")
PASS_KS = (1, 2, 5, 10, 100, 1000)

_NUM_ATTEMPTS = 2
_NO_ANSWER = [[0, 0], [0, 0]]  # as in Kaggle's sample submission
_CHUNK = 8192  # answers worked on at once, to bound the memory


class Candidate(NamedTuple):
    """A grid that got votes.

    Attributes:
        packed: the grid as `arc.pack` gives it; there can be millions.
        votes: their number, or the sum of their weights.
        mean_q: mean sigmoid of the Q of the rollouts that voted for it, a probability.
    """

    packed: bytes
    votes: float
    mean_q: float

    @property
    def grid(self) -> np.ndarray:
        """[h, w] int32; [0, 0] where the answer does not begin with a colour."""
        return unpack(self.packed)


@dataclasses.dataclass(frozen=True, eq=False)
class Ballot:
    """The result of a vote.

    Attributes:
        tasks: T tasks.
        candidates: ``candidates[t][i]`` are those of test input i of task t, the best first.
    """

    tasks: tuple[Task, ...]
    candidates: tuple[tuple[tuple[Candidate, ...], ...], ...]


def vote(
    arc_set: ArcSet,
    answers: Any,
    q_logits: Any,
    *,
    finite: Any | None = None,
    rule: str = "best_q",
) -> Ballot:
    """Ranks the distinct grids that were answered to each test input.

    More votes come first, then the larger mean sigmoid(Q), in float64, then the grid that was
    answered first: in the earlier row, within it by the lower rollout. A rollout that is not finite
    never votes. An answer that crops to nothing is a candidate like others, as upstream has it: it
    is never right but takes its rank.

    Args:
        arc_set: N rows.
        answers: [N, K, 900] integer, any tokens, or [N, 900] for one rollout per row. May be a
            memory map; it is read in pieces.
        q_logits: [N, K] or [N] float, logits.
        finite: [N, K] or [N] bool, rollouts that may vote; where Q is finite unless given.
        rule: "best_q", each row one vote, that of its finite rollout with the largest Q, ties to
            the lowest rollout; "all", each rollout one vote; "q_weighted", each rollout a vote that
            weighs sigmoid(Q).

    Raises:
        ValueError: shapes or types do not fit, or `rule` is another word.
    """
    if rule not in RULES:
        raise InputError(f"rule must be one of {', '.join(RULES)}; it is {rule!r}")
    answers, q_logits, finite = _rollouts(arc_set, answers, q_logits, finite)
    if rule == "best_q":
        finite &= np.arange(finite.shape[1]) == _best(q_logits, finite)[:, None]
    probability = expit(q_logits)
    weight = probability if rule == "q_weighted" else np.ones(q_logits.shape)

    # Of each test input: packed grid -> [votes, sum of sigmoid(Q), rollouts]. Dicts keep the order
    # in which grids turn up, and sorting keeps it among equals.
    tally: dict[tuple[int, int], dict[bytes, list[float]]] = {}
    step = max(1, _CHUNK // finite.shape[1])
    for first in range(0, len(arc_set), step):
        row, rollout = np.nonzero(finite[first : first + step])
        tokens = np.asarray(answers[first : first + step])[row, rollout]
        row += first
        grids = restore(tokens, arc_set.transform_of[row], arc_set.colors_of[row])
        places = zip(arc_set.task_of[row].tolist(), arc_set.test_of[row].tolist(), strict=True)
        weights, probabilities = weight[row, rollout], probability[row, rollout]
        for place, grid, w, p in zip(
            places, grids, weights.tolist(), probabilities.tolist(), strict=True
        ):
            entry = tally.setdefault(place, {}).setdefault(grid, [0.0, 0.0, 0])
            entry[0] += w
            entry[1] += p
            entry[2] += 1
    return Ballot(
        arc_set.tasks,
        tuple(
            tuple(_ranked(tally.get((t, i), {})) for i in range(len(task.test)))
            for t, task in enumerate(arc_set.tasks)
        ),
    )


def _ranked(entries: dict[bytes, list[float]]) -> tuple[Candidate, ...]:
    candidates = [
        Candidate(grid, votes, total / count) for grid, (votes, total, count) in entries.items()
    ]
    return tuple(sorted(candidates, key=lambda c: (c.votes, c.mean_q), reverse=True))


class Score(NamedTuple):
    """How good a ballot is.

    Attributes:
        pass_at: for each k, the mean over tasks of the fraction of a task's test inputs whose right
            grid is among the first k candidates, with a 95 % interval over tasks.
        num_inputs: test inputs behind it.
        num_unknown: test inputs left out, because their outputs are unknown.
        num_without_candidates: test inputs behind it that nobody voted on; they count as wrong.
    """

    pass_at: dict[int, Interval]
    num_inputs: int
    num_unknown: int
    num_without_candidates: int


def score(ballot: Ballot, ks: Sequence[int] = PASS_KS) -> Score:
    """pass@k of a ballot; see `Score`.

    Raises:
        ValueError: no output is known, or a k is less than 1.
    """
    known = [
        bool(candidates)
        for task, inputs in zip(ballot.tasks, ballot.candidates, strict=True)
        for pair, candidates in zip(task.test, inputs, strict=True)
        if pair.output is not None
    ]
    if not known:
        raise InputError(
            "a score needs the output of at least one test input; no task has any; read the tasks "
            "with their solutions"
        )
    ranks = _ranks(ballot)
    pass_at = {}
    for k in ks:
        fractions = _pass_at_k(ranks, k)
        pass_at[k] = metrics.interval(fractions[~np.isnan(fractions)])
    num_unknown = sum(len(task.test) for task in ballot.tasks) - len(known)
    return Score(pass_at, len(known), num_unknown, known.count(False))


def task_pass_at_k(ballot: Ballot, k: int) -> np.ndarray:
    """Fraction of each task's test inputs whose right grid is among the first k: [T] float64.

    NaN for tasks none of whose outputs is known; a single unknown output is left out. Compare two
    ballots of the same tasks with `metrics.paired_difference`, without these.

    Raises:
        ValueError: `k` is less than 1.
    """
    return _pass_at_k(_ranks(ballot), k)


def _ranks(ballot: Ballot) -> list[list[float]]:
    """Per task, for the test inputs whose output is known, its rank from 0, inf if it has none."""
    ranks = []
    for task, inputs in zip(ballot.tasks, ballot.candidates, strict=True):
        ranks.append([])
        for pair, candidates in zip(task.test, inputs, strict=True):
            if pair.output is not None:
                right = pack(pair.output)
                places = (i for i, candidate in enumerate(candidates) if candidate.packed == right)
                ranks[-1].append(next(places, math.inf))
    return ranks


def _pass_at_k(ranks: list[list[float]], k: int) -> np.ndarray:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InputError(f"k must be a whole number of candidates, at least 1; it is {k!r}")
    return np.array([np.mean([r < k for r in task]) if task else np.nan for task in ranks])


class RowAccuracy(NamedTuple):
    """How often the rollouts of single augmented test inputs are right, before any vote.

    Means over rows; right is every token of the augmented output and its border (padding does not
    count), as in upstream's `exact_accuracy`. The 95 % intervals resample tasks with all their
    rows, since rows of one task resemble each other; their `num_puzzles` is the number of tasks.

    Attributes:
        mean_rollout: of the K rollouts, the fraction that is right.
        best_q: whether the finite rollout with the largest Q is right.
        pass_at_k: whether one of the K is right.
        num_rows: rows behind them.
        num_unknown: rows left out, because their outputs are unknown.
    """

    mean_rollout: Interval
    best_q: Interval
    pass_at_k: Interval
    num_rows: int
    num_unknown: int


def row_accuracy(
    arc_set: ArcSet, answers: Any, q_logits: Any, *, finite: Any | None = None
) -> RowAccuracy:
    """Accuracy per augmentation; a rollout that is not finite counts as wrong.

    Args:
        arc_set: N rows.
        answers: as for `vote`.
        q_logits: as for `vote`.
        finite: as for `vote`.

    Raises:
        ValueError: shapes or types do not fit, or no output is known.
    """
    answers, q_logits, finite = _rollouts(arc_set, answers, q_logits, finite)
    known = metrics.valid_rows(arc_set.labels, PAD)
    if not known.any():
        raise InputError(
            "accuracy needs the output of at least one row; no row has any; read the tasks with "
            "their solutions"
        )
    correct = np.zeros(finite.shape, bool)
    step = max(1, _CHUNK // finite.shape[1])
    for first in range(0, len(correct), step):
        rows = slice(first, first + step)
        correct[rows] = metrics.exact(answers[rows], arc_set.labels[rows], ignore_label=PAD)
    correct, q_logits, finite = (correct & finite)[known], q_logits[known], finite[known]
    task_of, k = arc_set.task_of[known], correct.shape[1]
    return RowAccuracy(
        _mean_over_rows(correct.mean(axis=1), task_of),
        _mean_over_rows(metrics.first_k_best_q(correct, q_logits, k, finite=finite), task_of),
        _mean_over_rows(metrics.first_k_pass(correct, k), task_of),
        len(correct),
        int((~known).sum()),
    )


def _mean_over_rows(
    values: np.ndarray, task_of: np.ndarray, num_resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean of [N] fractions; its percentile interval, tasks resampled, each with all its rows."""
    _, task = np.unique(task_of, return_inverse=True)
    sums, counts = np.bincount(task, values), np.bincount(task)
    num_tasks = len(sums)
    if np.ptp(sums / counts) < 1e-12:  # resampling says nothing: the rule of `metrics.interval`
        return metrics.interval(sums / counts)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(num_tasks, np.full(num_tasks, 1 / num_tasks), size=num_resamples)
    low, high = np.quantile(drawn @ sums / (drawn @ counts), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high), num_tasks)


def submission(ballot: Ballot) -> dict[str, list[dict[str, list[list[int]]]]]:
    """Kaggle's format: per task, test inputs in order, ``{"attempt_1": grid, "attempt_2": grid}``.

    The attempts are the first two candidates that are not empty. Where there is one, it stands
    twice, as upstream has it; where there is none, both are ``[[0, 0], [0, 0]]``, as in Kaggle's
    sample (upstream leaves such an input out, and the following ones move up).
    """
    result = {}
    for task, inputs in zip(ballot.tasks, ballot.candidates, strict=True):
        result[task.name] = []
        for candidates in inputs:
            grids = [c.grid.tolist() for c in candidates if c.grid.size][:_NUM_ATTEMPTS]
            grids = grids or [_NO_ANSWER]
            grids += grids[:1] * (_NUM_ATTEMPTS - len(grids))
            result[task.name].append({f"attempt_{i}": grid for i, grid in enumerate(grids, 1)})
    return result


def write_submission(path: str | os.PathLike[str], ballot: Ballot) -> None:
    """Writes `submission` as JSON, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    write_text(path, json.dumps(submission(ballot)))


def _best(q_logits: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Of each row the finite rollout with the largest Q, the lowest of equals: [N] int64."""
    largest = np.max(q_logits, axis=1, keepdims=True, where=finite, initial=-np.inf)
    return (finite & (q_logits == largest)).argmax(axis=1)


def _rollouts(
    arc_set: ArcSet, answers: Any, q_logits: Any, finite: Any | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checked answers [N, K, 900], Q [N, K] float64 and which rollouts take part [N, K]."""
    answers, q_logits = np.asanyarray(answers), np.asarray(q_logits).astype(np.float64)
    if answers.ndim == 2 and q_logits.ndim == 1:
        answers, q_logits = answers[:, None], q_logits[:, None]
        finite = None if finite is None else np.asarray(finite)[..., None]
    shape = q_logits.shape
    fits = len(shape) == 2 and shape[0] == len(arc_set) and shape[1] > 0
    if not fits or answers.shape != (*shape, SEQ_LEN):
        raise InputError(
            f"answers and q_logits must be [N, K, {SEQ_LEN}] and [N, K], or without K, for the "
            f"{len(arc_set)} rows; got {list(answers.shape)} and {list(shape)}; pass arc_set.take "
            "of the rows that were solved"
        )
    if not np.issubdtype(answers.dtype, np.integer):
        raise InputError(f"answers must be integer tokens; got {answers.dtype}; argmax them")
    if finite is None:
        return answers, q_logits, np.isfinite(q_logits)
    finite = np.asarray(finite)
    if finite.shape != shape or finite.dtype != np.bool_:
        raise InputError(
            f"finite must be bool with the shape of q_logits, {list(shape)}; got {finite.dtype} "
            f"{list(finite.shape)}; pass one flag per rollout, or None"
        )
    # No flag can make NaN comparable.
    return answers, q_logits, finite & ~np.isnan(q_logits)
