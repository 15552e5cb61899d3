"""Studies whose sweeps and trajectories are given by arrays, so that figures need no model."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from ptrm_jax.analysis.study import Settings, Study, Trajectories
from ptrm_jax.metrics import Rollouts
from ptrm_jax.sweep.result import Result, Run


def run(correct: np.ndarray, sigma: float = 0.0, **scores: Any) -> Run:
    """A run whose rollouts are right as given, [B, K, D]; other scores are 0 unless given."""
    fields = {"q_logit": correct * 0.0, "cell_accuracy": correct * 1.0, "digest": correct * 1}
    rollouts = Rollouts(correct, **fields | scores)
    return Run(sigma, 0, rollouts, seconds=1.0, compile_seconds=0.0, measured=None)


def study(name: str, settings: Settings, deterministic: Run, *noisy: Run) -> tuple[Study, list]:
    """A study of these runs, and a list of its replays.

    States of replays are random, [1, K, D, 5, 2].
    """
    planted = Study(name, settings, "unused")
    result = Result(search=planted.config(), provenance={}, deterministic=deterministic, runs=noisy)
    correct, asked = deterministic.rollouts.correct, []

    def replay(rows: Any, rollouts: Any = (0,), sigma: float = 0.1) -> Trajectories:
        asked.append((tuple(rows), tuple(rollouts), sigma))
        shape = (len(rows), len(rollouts), correct.shape[2], 5, 2)
        y = np.random.default_rng(len(asked)).normal(size=shape)
        return Trajectories(None, None, None, y, None, None, None)

    planted.sweep = lambda **_: result
    planted.replay = replay
    planted.caption = lambda result, more: more
    planted.prepared = SimpleNamespace(
        puzzles=SimpleNamespace(puzzles=SimpleNamespace(index=np.arange(len(correct)))),
        provenance={},
    )
    return planted, asked
