"""What is kept of the rollouts of a unit: scores of every step, without the answers themselves.

It is small, and enough for every metric at every smaller width and depth.

Shape letters: B puzzles, K rollouts, D supervision steps, S tokens; b and k those of one unit.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ptrm_jax import metrics
from ptrm_jax.config import Read
from ptrm_jax.sweep.plan import Unit


class Measured(NamedTuple):
    """What the rollouts of a unit did after every step; without the answers but on request.

    Attributes:
      correct: [b, k, D] bool, the whole answer is right.
      cell_accuracy: [b, k, D] float32, fraction of counted positions.
      q_logit: [b, k, D] float32 logits.
      finite: [b, k, D] bool.
      valid: [b, k, D] bool, the answer satisfies the rules of its puzzle; all False where the task
        has none.
      answer: [b, k, D] uint64, `answer_digest`.
      tokens: [b, k, n, S] the answers of the n steps that were to be kept.
      chosen: [b, 1, 4] int32 of a unit with a stopping rule, as `Chosen`, whose other fields have
        k = D = 1: the answers of the rule. [b, 0, 4] otherwise.
    """

    correct: np.ndarray
    cell_accuracy: np.ndarray
    q_logit: np.ndarray
    finite: np.ndarray
    valid: np.ndarray
    answer: np.ndarray
    tokens: np.ndarray
    chosen: np.ndarray


class Chosen(NamedTuple):
    """What a stopping rule did with B puzzles.

    Attributes:
      rollout: [B] int32, the rollout that answers; -1 where no reading was finite.
      step: [B] int32, its supervision step.
      stopped: [B] int32, 1 where the rule stopped.
      rollout_steps: [B] int32, supervision steps that the rule needs.
    """

    rollout: np.ndarray
    step: np.ndarray
    stopped: np.ndarray
    rollout_steps: np.ndarray


def measure(
    answers: np.ndarray,
    q_logits: np.ndarray,
    finite: np.ndarray,
    labels: np.ndarray,
    ignore_label: int | None,
    *,
    valid: np.ndarray | None = None,
    keep_steps: Sequence[int] = (),
    read: Read = "last",
    chosen: Chosen | None = None,
) -> Measured:
    """What is kept of rollouts.

    Args:
      answers: [b, k, D, S] int32.
      q_logits: [b, k, D] float32.
      finite: [b, k, D] bool.
      labels: [b, S].
      ignore_label: label of positions that do not count.
      valid: [b, k, D] bool, whether the answers satisfy the rules; None without rules.
      keep_steps: supervision steps, from 1, of which the answers themselves are kept.
      read: with "best", the answer kept of a step is that of highest Q up to it.
      chosen: of a stopping rule.
    """
    small = np.min_scalar_type(int(answers.max(initial=0)))
    kept = np.array(keep_steps, int) - 1
    if read == "best":
        kept = metrics.best_steps(q_logits, finite)[:, :, kept]
        tokens = np.take_along_axis(answers, kept[..., None], axis=2)
    else:
        tokens = answers[:, :, kept]
    return Measured(
        correct=metrics.exact(answers, labels, ignore_label=ignore_label) & finite,
        cell_accuracy=metrics.cell_accuracy(answers, labels, ignore_label=ignore_label).astype(
            np.float32
        ),
        q_logit=np.asarray(q_logits),
        finite=np.asarray(finite),
        valid=np.zeros(finite.shape, bool) if valid is None else valid & finite,
        answer=answer_digest(answers),
        tokens=tokens.astype(small),
        chosen=(
            np.zeros((len(answers), 0, len(Chosen._fields)), np.int32)
            if chosen is None
            else np.stack([np.asarray(x, np.int32) for x in chosen], axis=-1)[:, None]
        ),
    )


def answer_digest(answers: np.ndarray) -> np.ndarray:
    """Zobrist hash of answers: [..., S] tokens of 0..65535 to [...] uint64.

    Different answers have equal digests with probability 2^-64.
    """
    # Position by position, so that nothing of the size of the answers is made.
    digest = np.zeros(answers.shape[:-1], np.uint64)
    for position in range(answers.shape[-1]):
        tokens = answers[..., position].astype(np.uint64)
        digest ^= _mix(tokens + np.uint64(position) * np.uint64(1 << 16))
    return digest


def _mix(numbers: np.ndarray) -> np.ndarray:
    """Splitmix64: a bijection of uint64 that scatters (Steele, Lea and Flood, OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        x = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Finished(NamedTuple):
    """A unit and what came of it.

    Attributes:
      unit: what was asked.
      measured: what its rollouts did.
      seconds: wall time without compilation.
      compile_seconds: time of compilation.
    """

    unit: Unit
    measured: Measured
    seconds: float
    compile_seconds: float


def assemble(finished: Sequence[Finished]) -> Measured:
    """The units of one (sigma, seed) as one: fields [B, K, D]."""
    rows: dict[int, list[Finished]] = {}
    for part in sorted(finished, key=lambda part: (part.unit.puzzles, part.unit.rollouts)):
        rows.setdefault(part.unit.puzzles[0], []).append(part)
    wide = [_join([part.measured for part in row], axis=1) for row in rows.values()]
    return _join(wide, axis=0)


def _join(parts: Sequence[Measured], axis: int) -> Measured:
    join = functools.partial(np.concatenate, axis=axis)
    return Measured(*(join(fields) for fields in zip(*parts, strict=True)))
