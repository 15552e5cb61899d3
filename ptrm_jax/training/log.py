"""The log of a training run: JSON lines, and the metrics of steps that they hold."""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import jax
import msgspec
import numpy as np

from ptrm_jax.errors import TrainingError
from ptrm_jax.files import signed, unsigned, write_text, writing
from ptrm_jax.reading import read_bytes
from ptrm_jax.training.config import TrainConfig
from ptrm_jax.training.step import StepMetrics

Record = dict[str, Any]
"""A line of the log; its "kind" is "start", "train" or "eval"."""


SAFE = "the last saved state is kept"
"""Of a run that cannot write; for messages."""

_Interval = tuple[float | None, float | None, float | None, int]


class _Start(TypedDict):
    kind: Literal["start"]
    step: int


class _Train(TypedDict):
    """What is read of a record of training."""

    kind: Literal["train"]
    step: int
    lm_loss: float | None
    q_loss: float | None
    cell_accuracy: float | None
    exact_accuracy: float | None
    q_accuracy: float | None
    seconds: float


_Eval = TypedDict(
    "_Eval",
    {
        "kind": Literal["eval"],
        "step": int,
        "deterministic": _Interval,
        "mean": _Interval,
        "best_q": _Interval,
        "pass": _Interval,
        "q_auc": float | None,
        "eval_depth": int,
        "eval_rollouts": int,
        "eval_sigma": float,
    },
)
"""What is read of a record of an evaluation."""

_KINDS = {"start": _Start, "train": _Train, "eval": _Eval}


class Logged(NamedTuple):
    """What a log holds.

    Attributes:
      records: of the intact lines, in order.
      damaged: numbers of the others, from 1; a kill may have cut off the last.
    """

    records: list[Record]
    damaged: list[int]


def read_log(path: str | os.PathLike[str]) -> Logged:
    """The records of a log; none if it does not exist.

    Every line has a digest, except those written by version 0.4.

    Raises:
      InputError: it is no regular file.
      OSError: it cannot be read.
    """
    found = Logged([], [])
    if not os.path.exists(path):
        return found
    for number, line in enumerate(read_bytes(path).split(b"\n"), 1):
        if not line:
            continue
        try:
            record = unsigned(msgspec.json.decode(line))
            msgspec.convert(record, _KINDS[record["kind"]])
            found.records.append(record)
        except (ValueError, KeyError, TypeError, RecursionError):
            found.damaged.append(number)
    return found


class Log:
    """The log of a run that resumes at `step`; records of later steps are dropped.

    Args:
      path: `log.jsonl` of the run.
      step: optimiser steps done.
      progress: called with every record that is written.

    Attributes:
      path: of the file.
      damaged: numbers of its lines that were damaged and are dropped.
    """

    def __init__(self, path: Path, step: int, progress: Callable[[Record], None]) -> None:
        self.path, self._progress = path, progress
        found = read_log(path)
        self.damaged = found.damaged
        self._kept = [record for record in found.records if record["step"] <= step]
        with writing(path, SAFE):
            write_text(path, "".join(map(_line, self._kept)))

    def has(self, kind: str, step: int) -> bool:
        return any(r["kind"] == kind and r["step"] == step for r in self._kept)

    def write(self, record: Record) -> None:
        line = _line(record)
        self._kept.append(unsigned(json.loads(line)))
        with writing(self.path, SAFE), self.path.open("a", encoding="utf-8") as file:
            file.write(line)
        self._progress(self._kept[-1])


def _line(record: Record) -> str:
    return json.dumps(signed(record)) + "\n"


class Meter:
    """Collects the metrics of steps without waiting for them, and makes log records of them.

    Args:
      config: settings of the run.
      step: optimiser steps done.
      seconds: time that they took.
    """

    def __init__(self, config: TrainConfig, step: int, seconds: float) -> None:
        self._config = config
        self._pending: list[StepMetrics] = []
        self._step, self._before = step, seconds
        self._start = self._last = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent training, over all processes of this run."""
        return self._before + time.perf_counter() - self._start

    def add(self, step_metrics: StepMetrics) -> None:
        self._pending.append(step_metrics)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Time within this context is not counted."""
        start = time.perf_counter()
        yield
        paused = time.perf_counter() - start
        self._start += paused
        self._last += paused

    def flush(self, log: Log, step: int) -> None:
        """Writes one record of the steps since the last one, if there are any.

        Raises:
          TrainingError: the loss or the gradient of one of them is not finite.
        """
        if not self._pending:
            return
        fetched = jax.device_get(self._pending)
        now = time.perf_counter()
        steps = StepMetrics._make(np.array(x, np.float64) for x in zip(*fetched, strict=True))
        bad = ~(np.isfinite(steps.loss) & np.isfinite(steps.grad_norm))
        if bad.any():
            at = self._step + int(np.argmax(bad)) + 1
            raise TrainingError(not_finite("the loss or its gradient", at))
        count = len(fetched)
        halted = float(steps.halted.sum())
        per_halted = 1.0 / halted if halted else math.nan
        rate = count / max(now - self._last, 1e-9)
        log.write(
            {
                "kind": "train",
                "step": step,
                "loss": float(steps.loss.mean()),
                "lm_loss": float(steps.lm_loss.mean()),
                "q_loss": float(steps.q_loss.mean()),
                "cell_accuracy": float(steps.cell_accuracy.sum() * per_halted),
                "exact_accuracy": float(steps.exact.sum() * per_halted),
                "q_accuracy": float(steps.q_right.sum() * per_halted),
                "mean_steps": float(steps.steps.sum() * per_halted),
                "halting_rate": halted / (count * self._config.batch_size),
                "grad_norm": float(steps.grad_norm.mean()),
                "steps_per_second": rate,
                "seconds": self.seconds,
                "seconds_left": (self._config.steps - step) / rate,
            }
        )
        self._pending, self._step, self._last = [], step, now


def not_finite(what: str, step: int) -> str:
    """The message of a run that has diverged."""
    return (
        f"{what} is not finite at step {step}; the last saved state is kept; lower learning_rate, "
        "or start a new run from a snapshot with start_from"
    )
