"""Sweeps: a run for every (sigma, seed), the deterministic TRM beside it, and all their scores.

Data flows one way: `SweepConfig` -> `prepare` -> `resume` -> `Result` -> `scores.compute` ->
`report`, `pictures`. Rollouts and steps nest: the run at the largest K and D contains every
smaller k and d, so curves cost nothing beyond it.
"""

from ptrm_jax.sweep.config import Search as Search, SweepConfig as SweepConfig
from ptrm_jax.sweep.folder import (
    inspect as inspect,
    read as read,
    resume as resume,
)
from ptrm_jax.sweep.plan import Shard as Shard
from ptrm_jax.sweep.prepare import Sweep as Sweep, Workload as Workload, prepare as prepare
from ptrm_jax.sweep.result import Outcome as Outcome, Result as Result, Run as Run
from ptrm_jax.sweep.run import evaluate as evaluate, run as run
from ptrm_jax.sweep.scores import Scores as Scores
