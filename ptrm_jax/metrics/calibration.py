"""Stop rules chosen on labelled puzzles, with a bound on what they lose.

Letters: B puzzles, K rollouts, D supervision steps.

The method is Learn then Test (Angelopoulos, Bates, Candes, Jordan and Lei, arXiv 2110.01052): rules
are tested in a fixed order, from the reference to ever cheaper ones, each against the hypothesis
that it loses more than is allowed, until one is not rejected. Those before are all within the loss
with the confidence asked for, whatever the model, if further puzzles are drawn as these were.
Conformal risk control is the alternative; it bounds the loss on average over calibration sets
rather than with a confidence, and it needs a loss that is monotone in the threshold, which accuracy
is not: a higher threshold answers later, and depth can hurt.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from ptrm_jax.config import Read, Stop
from ptrm_jax.errors import InputError
from ptrm_jax.metrics.estimators import best_q_at_k
from ptrm_jax.metrics.intervals import Interval, interval, paired_difference, ratio_interval
from ptrm_jax.metrics.rollouts import Bools, Rollouts
from ptrm_jax.metrics.stopping import Replayed, replay

THRESHOLDS = tuple(x / 4 for x in range(40, -17, -1))
"""Thresholds on Q that are tested: logits from 10 to -4. They are not taken from the puzzles that
the test is about."""

_OF_GAIN = 0.1
"""Share of the error probability that bounds the gain from below; the rest bounds the loss."""


class Score(NamedTuple):
    """A rule on puzzles, all intervals being over them.

    Attributes:
      accuracy: fraction solved.
      reference: fraction solved by the reference.
      difference: accuracy minus that of the reference, paired by puzzle.
      rollout_steps: per puzzle.
      share: `rollout_steps` as a fraction of K * D.
      coverage: fraction of puzzles on which the rule stopped: those it is sure of.
      sure: fraction of these that are right, the accuracy if the others are not answered.
    """

    accuracy: Interval
    reference: Interval
    difference: Interval
    rollout_steps: Interval
    share: float
    coverage: Interval
    sure: Interval


class Rule(NamedTuple):
    """A rule, and the depth at which it gives up a rollout.

    Attributes:
      stop: when a puzzle stops.
      depth: steps of a rollout that does not fire.
    """

    stop: Stop
    depth: int


def puzzles_needed(loss: float, confidence: float, num_families: int = 1) -> int:
    """Fewest calibration puzzles with which any rule can pass: none of them lost."""
    error = _error(confidence, num_families)
    return math.ceil(math.log((1 - _OF_GAIN) * error) / math.log1p(-loss))


def calibrate(
    rollouts: Rollouts,
    *,
    loss: float,
    confidence: float = 0.95,
    reference: Read = "best",
    family: Stop = Stop(math.inf),  # noqa: B008 (immutable)
    caps: Sequence[int | None] = (None,),
    depths: Sequence[int | None] = (None,),
) -> Rule | None:
    """The cheapest rule whose accuracy is within `loss` of the reference, with a confidence.

    Accuracy is that of fresh puzzles like these, and the confidence is over the draw of these. A
    rule's loss is p - g, where p is the probability that the reference solves a puzzle and the rule
    does not, and g the other way round. It is bounded by a Clopper-Pearson upper bound on p and a
    lower one on g, at nine tenths and one tenth of the error probability 1 - `confidence`, which
    holds for any number of puzzles. Of equally cheap rules the one with the highest threshold is
    taken.

    Args:
      rollouts: [B, K, D], labelled.
      loss: allowed loss, a fraction such as 0.01 for a point.
      confidence: a fraction such as 0.95.
      reference: best-Q@K with all K * D steps, read at the "last" step or at the "best".
      family: what the rules have in common; `THRESHOLDS` take the place of its `q_logit`.
      caps: values of `max_rollout_steps`.
      depths: steps at which a rollout is given up, None for D. The reference keeps all D. Each cap
        with each depth makes a family of its own, and the families share the error probability
        (Bonferroni), so more puzzles are needed.

    Returns:
      The rule; None where not even the highest threshold passes.

    Raises:
      InputError: a setting out of range, no labels, no steps, or too few puzzles for the loss and
        the confidence; the message says how many are needed.
    """
    if not (isinstance(loss, float) and 0 < loss < 1):
        raise InputError(f"loss must be a fraction in (0, 1); got {loss!r}; pass 0.01 for a point")
    families = list(itertools.product(caps, depths))
    if not families:
        raise InputError("caps and depths must hold at least one value; pass (None,) for no limit")
    needed = puzzles_needed(loss, confidence, len(families))
    solved = reference_solves(rollouts, reference)
    if len(solved) < needed:
        raise InputError(
            f"calibration needs at least {needed} labelled puzzles for a loss of {loss:g} with "
            f"confidence {confidence:g}; got {len(solved)}; sweep more puzzles, or ask for less"
        )
    error = _error(confidence, len(families))
    accepted: list[tuple[float, Rule]] = []
    for cap, limit in families:
        depth = rollouts.correct.shape[2] if limit is None else limit
        short = rollouts.up_to(depth)
        for threshold in THRESHOLDS:
            stop = dataclasses.replace(family, q_logit=threshold, max_rollout_steps=cap)
            replayed = replay_on(short, stop)
            if loss_bound(replayed.of(short.correct), solved, error) > loss:
                break
            accepted.append((float(replayed.rollout_steps.mean()), Rule(stop, depth)))
    return min(accepted, key=lambda each: each[0])[1] if accepted else None


def score(rollouts: Rollouts, rule: Rule, reference: Read = "best") -> Score:
    """How a rule does, best on puzzles that it was not chosen on.

    Args:
      rollouts: [B, K, D], labelled.
      rule: of `calibrate`.
      reference: as for `calibrate`, with all steps.

    Raises:
      InputError: no labels, or no steps.
    """
    solved, short = reference_solves(rollouts, reference), rollouts.up_to(rule.depth)
    replayed = replay_on(short, rule.stop)
    right, stopped = replayed.of(short.correct), replayed.stopped
    steps = ratio_interval(replayed.rollout_steps, np.ones(len(solved)))
    return Score(
        accuracy=interval(right),
        reference=interval(solved),
        difference=paired_difference(right, solved),
        rollout_steps=steps,
        share=steps.mean / math.prod(rollouts.correct.shape[1:]),
        coverage=interval(stopped),
        sure=ratio_interval(right & stopped, stopped, bounds=(0.0, 1.0)),
    )


def replay_on(rollouts: Rollouts, stop: Stop) -> Replayed:
    """`replay` on rollouts that are scored after every step."""
    return replay(rollouts.q_logit, rollouts.eligible, stop, answers=rollouts.digest)


def halves(num_puzzles: int, seed: int = 0) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of two random halves of the puzzles: one to choose a rule on, one to report it on."""
    order = np.random.default_rng(seed).permutation(num_puzzles)
    middle = (num_puzzles + 1) // 2
    return np.sort(order[:middle]), np.sort(order[middle:])


def reference_solves(rollouts: Rollouts, reference: Read) -> Bools:
    """[B] bool: which puzzles best-Q@K solves with all K * D steps."""
    if not len(rollouts.correct):
        raise InputError("calibration needs labelled puzzles; got none; sweep puzzles with answers")
    steps = rollouts.read(reference)
    num_rollouts, depth = steps.correct.shape[1:]
    return best_q_at_k(steps.at(depth), num_rollouts) == 1


def loss_bound(right: Bools, reference: Bools, error: float) -> float:
    """Upper confidence bound on the loss of a rule; see `calibrate`.

    Args:
      right: [B] bool, solved by the rule.
      reference: [B] bool, solved by the reference.
      error: probability with which the bound may be exceeded.
    """
    n, lost, gained = len(right), (reference & ~right).sum(), (right & ~reference).sum()
    most = betaincinv(lost + 1, n - lost, 1 - (1 - _OF_GAIN) * error) if lost < n else 1.0
    least = betaincinv(gained, n - gained + 1, _OF_GAIN * error) if gained else 0.0
    return float(most - least)


def _error(confidence: float, num_families: int) -> float:
    if not 0 < confidence < 1:
        raise InputError(
            f"confidence must be a fraction in (0, 1); got {confidence!r}; pass 0.95 for 95 %"
        )
    return (1 - confidence) / num_families
