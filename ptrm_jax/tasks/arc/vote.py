"""Answers to ARC-AGI: the vote over augmentations, pass@k, accuracy per row, submissions.

`vote` crops every answer, undoes its augmentation and ranks the distinct grids of a test input by
votes, then by the mean sigmoid of the Q logits of its voters. With one rollout per row this is
upstream's evaluator (``evaluators/arc.py``, commit e7b6871, one process); PTRM first selects the
rollout with the best Q of each row's K (arXiv 2605.19943). The rows of a challenge need not be
complete: rows that were not solved do not vote.

Letters: N rows of an `ArcSet`, K rollouts, S = 900 tokens, T challenges. Accuracies are fractions.
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
from ptrm_jax.tasks.arc.augment import restore
from ptrm_jax.tasks.arc.challenges import Challenge
from ptrm_jax.tasks.arc.grids import PAD, SEQ_LEN, pack, unpack
from ptrm_jax.tasks.arc.rows import ArcSet

RULES = ("best_q", "all", "q_weighted")
PASS_KS = (1, 2, 5, 10, 100, 1000)

_NO_ANSWER = [[0, 0], [0, 0]]  # as in Kaggle's sample submission
_CHUNK = 8192  # answers processed at once, to bound the memory


class Candidate(NamedTuple):
    """A grid that received votes.

    Attributes:
      packed: the grid as `grids.pack` writes it; there can be millions.
      votes: the number of votes, or the sum of their weights.
      mean_q: mean sigmoid of the Q logits of the rollouts that voted for it, a probability.
    """

    packed: bytes
    votes: float
    mean_q: float

    @property
    def grid(self) -> np.ndarray:
        """[h, w] int32; [0, 0] if the answer does not begin with a colour."""
        return unpack(self.packed)


@dataclasses.dataclass(frozen=True, eq=False)
class Ballot:
    """The result of a vote.

    Attributes:
      challenges: T challenges.
      candidates: ``candidates[t][i]`` are those of test input i of challenge t, the best first.
    """

    challenges: tuple[Challenge, ...]
    candidates: tuple[tuple[tuple[Candidate, ...], ...], ...]


def vote(
    arc_set: ArcSet,
    answers: Any,
    q_logits: Any,
    *,
    finite: Any | None = None,
    rule: str = "best_q",
) -> Ballot:
    """Ranks the distinct grids among the answers to each test input.

    Grids are ordered by votes, then by mean sigmoid(Q) in float64, then by the first row that
    answered them, and within a row by the lowest rollout. A rollout that is not finite never votes.
    As upstream, an answer that crops to nothing is a candidate like any other: it is never right
    but occupies its rank.

    Args:
      arc_set: N rows.
      answers: [N, K, 900] integer, any tokens, or [N, 900] for one rollout per row. May be a
        memory map; it is read in chunks.
      q_logits: [N, K] or [N] float, logits.
      finite: [N, K] or [N] bool, rollouts that may vote; by default those with finite Q.
      rule: "best_q", one vote per row, by its finite rollout with the largest Q, ties to the
        lowest rollout; "all", one vote per rollout; "q_weighted", one vote per rollout with
        weight sigmoid(Q).

    Raises:
      InputError: shapes or types do not fit, or `rule` is none of these.
    """
    if rule not in RULES:
        raise InputError(f"rule must be one of {', '.join(RULES)}; got {rule!r}")
    answers, q_logits, finite = _rollouts(arc_set, answers, q_logits, finite)
    if rule == "best_q":
        finite &= np.arange(finite.shape[1]) == _best(q_logits, finite)[:, None]
    probability = expit(q_logits)
    weight = probability if rule == "q_weighted" else np.ones(q_logits.shape)

    # For each test input: packed grid -> [votes, sum of sigmoid(Q), rollouts]. Dicts keep the order
    # of insertion, and sorting is stable.
    tally: dict[tuple[int, int], dict[bytes, list[float]]] = {}
    step = max(1, _CHUNK // finite.shape[1])
    for first in range(0, len(arc_set), step):
        row, rollout = np.nonzero(finite[first : first + step])
        tokens = np.asarray(answers[first : first + step])[row, rollout]
        row += first
        grids = restore(tokens, arc_set.transform_of[row], arc_set.colors_of[row])
        places = zip(arc_set.challenge_of[row].tolist(), arc_set.test_of[row].tolist(), strict=True)
        weights, probabilities = weight[row, rollout], probability[row, rollout]
        for place, grid, w, p in zip(
            places, grids, weights.tolist(), probabilities.tolist(), strict=True
        ):
            entry = tally.setdefault(place, {}).setdefault(grid, [0.0, 0.0, 0])
            entry[0] += w
            entry[1] += p
            entry[2] += 1
    return Ballot(
        arc_set.challenges,
        tuple(
            tuple(_ranked(tally.get((t, i), {})) for i in range(len(challenge.test)))
            for t, challenge in enumerate(arc_set.challenges)
        ),
    )


def _ranked(entries: dict[bytes, list[float]]) -> tuple[Candidate, ...]:
    candidates = [
        Candidate(grid, votes, total / count) for grid, (votes, total, count) in entries.items()
    ]
    return tuple(sorted(candidates, key=lambda c: (c.votes, c.mean_q), reverse=True))


class Score(NamedTuple):
    """Accuracy of a ballot.

    Attributes:
      pass_at: for each k, the mean over challenges of the fraction of a challenge's test inputs
        whose right grid is among the first k candidates, with a 95 % interval over challenges.
      num_inputs: test inputs counted.
      num_unknown: test inputs left out, because their outputs are unknown.
      num_without_candidates: test inputs counted that received no votes; they count as wrong.
    """

    pass_at: dict[int, Interval]
    num_inputs: int
    num_unknown: int
    num_without_candidates: int


def score(ballot: Ballot, ks: Sequence[int] = PASS_KS) -> Score:
    """pass@k of a ballot; see `Score`.

    Raises:
      InputError: no output is known, or a k is less than 1.
    """
    ranks: list[list[float]] = []  # of each challenge: of each known output, from 0, inf for none
    num_without_candidates = 0
    for challenge, inputs in zip(ballot.challenges, ballot.candidates, strict=True):
        ranks.append([])
        for pair, candidates in zip(challenge.test, inputs, strict=True):
            if pair.output is not None:
                right = pack(pair.output)
                places = (i for i, candidate in enumerate(candidates) if candidate.packed == right)
                ranks[-1].append(next(places, math.inf))
                num_without_candidates += not candidates
    num_inputs = sum(map(len, ranks))
    if not num_inputs:
        raise InputError(
            "a score needs the output of at least one test input; no task has any; read the tasks "
            "with their solutions"
        )
    pass_at = {}
    for k in ks:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InputError(f"k must be a whole number of candidates, at least 1; got {k!r}")
        pass_at[k] = metrics.interval([np.mean([r < k for r in known]) for known in ranks if known])
    num_unknown = sum(len(challenge.test) for challenge in ballot.challenges) - num_inputs
    return Score(pass_at, num_inputs, num_unknown, num_without_candidates)


class RowAccuracy(NamedTuple):
    """Accuracy of the rollouts of single augmented test inputs, before any vote.

    Means over rows. A rollout is right if every token of the augmented output and its border is
    (padding does not count), as in upstream's `exact_accuracy`. The 95 % intervals resample
    challenges with all their rows, since rows of one challenge resemble each other; their
    `num_puzzles` is the number of challenges.

    Attributes:
      mean_rollout: the fraction of the K rollouts that is right.
      best_q: whether the finite rollout with the largest Q is right.
      pass_at_k: whether one of the K rollouts is right.
      num_rows: rows counted.
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
    """Accuracy per augmentation. A rollout that is not finite counts as wrong.

    Args:
      arc_set: N rows.
      answers: as for `vote`.
      q_logits: as for `vote`.
      finite: as for `vote`.

    Raises:
      InputError: shapes or types do not fit, or no output is known.
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
    correct = correct & finite
    best = correct[np.arange(len(correct)), _best(q_logits, finite)]
    challenge_of = arc_set.challenge_of[known]
    return RowAccuracy(
        _mean_over_rows(correct.mean(axis=1)[known], challenge_of),
        _mean_over_rows(best[known], challenge_of),
        _mean_over_rows(correct.any(axis=1)[known], challenge_of),
        int(known.sum()),
        int((~known).sum()),
    )


def _mean_over_rows(
    values: np.ndarray, challenge_of: np.ndarray, num_resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean of [N] fractions; percentile interval from resampling challenges with all their rows."""
    _, which = np.unique(challenge_of, return_inverse=True)
    sums, counts = np.bincount(which, values), np.bincount(which)
    size = len(sums)
    if np.ptp(sums / counts) < 1e-12:  # resampling cannot tell: the rule of `metrics.interval`
        return metrics.interval(sums / counts)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(size, np.full(size, 1 / size), size=num_resamples)
    low, high = np.quantile(drawn @ sums / (drawn @ counts), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high), size)


def submission(ballot: Ballot) -> dict[str, list[dict[str, list[list[int]]]]]:
    """Kaggle's format: for each task, ``[{"attempt_1": grid, "attempt_2": grid}, ...]``.

    The attempts are the first two candidates that are not empty. A single candidate is repeated, as
    upstream does; without any, both attempts are ``[[0, 0], [0, 0]]``, as in Kaggle's sample
    (upstream leaves such an input out, which shifts the following ones).
    """
    return {
        challenge.name: [_attempts(candidates) for candidates in inputs]
        for challenge, inputs in zip(ballot.challenges, ballot.candidates, strict=True)
    }


def _attempts(candidates: Sequence[Candidate]) -> dict[str, list[list[int]]]:
    grids = [c.grid.tolist() for c in candidates if c.grid.size] or [_NO_ANSWER]
    return {"attempt_1": grids[0], "attempt_2": grids[min(1, len(grids) - 1)]}


def write_submission(path: str | os.PathLike[str], ballot: Ballot) -> None:
    """Writes `submission` as JSON, atomically.

    Raises:
      OSError: it cannot be written; an existing file is kept.
    """
    write_text(path, json.dumps(submission(ballot)))


def _best(q_logits: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """The finite rollout of each row with the largest Q, ties to the lowest: [N] int64."""
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
            f"{len(arc_set)} rows; got {list(answers.shape)} and {list(shape)}; restrict the rows "
            "to those that were solved with arc_set.take"
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
    # NaN cannot be compared, whatever the flags say.
    return answers, q_logits, finite & ~np.isnan(q_logits)
