"""Work units: the pieces of a sweep that are computed, kept and, after a failure, done again.

A unit is a block of puzzles times a block of rollouts at one (sigma, seed), to the full depth. How
a sweep falls into units follows from its settings alone, so every process of every attempt finds
the same ones, whatever its devices. What a unit leaves is small (`Measured`), and enough for every
metric at every smaller width and depth.

Shape letters: B puzzles, K rollouts, D supervision steps, S tokens; b and k those of one unit.
"""

import functools
import hashlib
import io
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ptrm_jax import metrics


class Unit(NamedTuple):
    """What to compute.

    Attributes:
      sigma: noise scale; 0 with `rollouts` 0..1 is the deterministic TRM.
      seed: the user's integer.
      depth: D.
      puzzles: first and stop row of the data.
      rollouts: first and stop rollout id.
      shape: puzzles and rollouts of the largest unit beside it; the last ones are filled up to it,
        so that one program does for all.
      langevin: with the sweep's Langevin updates; the deterministic TRM has none.
    """

    sigma: float
    seed: int
    depth: int
    puzzles: tuple[int, int]
    rollouts: tuple[int, int]
    shape: tuple[int, int]
    langevin: bool = False

    @property
    def lanes(self) -> int:
        """Rollouts of single puzzles."""
        return math.prod(stop - first for first, stop in (self.puzzles, self.rollouts))

    @property
    def rollout_steps(self) -> int:
        """Supervision steps of single rollouts."""
        return self.lanes * self.depth

    def digest(self, identity: dict[str, Any]) -> str:
        """Names the unit of a sweep: a digest of everything that decides its result."""
        # Units without Langevin updates keep the names that they have always had.
        unit = self if self.langevin else self[:-1]
        text = json.dumps([identity, unit], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan(
    *,
    sigma: float,
    seed: int,
    depth: int,
    rollouts: int,
    num_puzzles: int,
    lanes: int,
    langevin: bool = False,
) -> list[Unit]:
    """The units of one (sigma, seed): at most `lanes` each, and of equal size as near as can be."""
    width = _even(rollouts, lanes)
    height = _even(num_puzzles, max(1, lanes // width))
    return [
        Unit(
            *(sigma, seed, depth),
            (puzzle, min(puzzle + height, num_puzzles)),
            (rollout, min(rollout + width, rollouts)),
            (height, width),
            langevin,
        )
        for puzzle in range(0, num_puzzles, height)
        for rollout in range(0, rollouts, width)
    ]


def _even(total: int, most: int) -> int:
    """Size of the parts, at most `most`, that `total` falls into most evenly."""
    return math.ceil(total / math.ceil(total / most))


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
    """

    correct: np.ndarray
    cell_accuracy: np.ndarray
    q_logit: np.ndarray
    finite: np.ndarray
    valid: np.ndarray
    answer: np.ndarray
    tokens: np.ndarray


def measure(
    answers: np.ndarray,
    q_logits: np.ndarray,
    finite: np.ndarray,
    labels: np.ndarray,
    ignore_label: int | None,
    *,
    valid: np.ndarray | None = None,
    keep_steps: Sequence[int] = (),
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
    """
    small = np.min_scalar_type(int(answers.max(initial=0)))
    kept = np.array(keep_steps, int) - 1
    return Measured(
        correct=metrics.exact(answers, labels, ignore_label=ignore_label) & finite,
        cell_accuracy=metrics.cell_accuracy(answers, labels, ignore_label=ignore_label).astype(
            np.float32
        ),
        q_logit=np.asarray(q_logits),
        finite=np.asarray(finite),
        valid=np.zeros(finite.shape, bool) if valid is None else valid & finite,
        answer=answer_digest(answers),
        tokens=answers[:, :, kept].astype(small),
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


def pack(digest: str, finished: Finished) -> bytes:
    """A finished unit as the payload of a record."""
    about = {
        "digest": digest,
        "unit": finished.unit,
        "seconds": finished.seconds,
        "compile_seconds": finished.compile_seconds,
    }
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez_compressed(buffer, about=text, **finished.measured._asdict())
    return buffer.getvalue()


def unpack(payload: bytes) -> tuple[str, Finished]:
    """Inverse of `pack`: the unit's digest, and the unit."""
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes())
        measured = Measured(**{name: arrays[name] for name in Measured._fields})
    unit = Unit(*(tuple(x) if isinstance(x, list) else x for x in about["unit"]))
    return about["digest"], Finished(unit, measured, about["seconds"], about["compile_seconds"])


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
