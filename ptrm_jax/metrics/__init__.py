"""Scores of rollouts against labels, and their uncertainty.

Three steps: compare answers with labels (`exact`, `cell_accuracy`), estimate from the K rollouts of
each puzzle how often a choice is right (`pass_at_k`, `best_q_at_k`, `mode_at_k`), and average over
puzzles with a confidence interval (`interval`, `paired_difference`). The steps exchange one float64
per puzzle, so a caller drops padding rows once: ``values[valid_rows(labels, ignore_label)]``.
"""

from ptrm_jax.metrics.answers import (
    answer_ids as answer_ids,
    cell_accuracy as cell_accuracy,
    digest_ids as digest_ids,
    exact as exact,
    token_mask as token_mask,
    valid_rows as valid_rows,
)
from ptrm_jax.metrics.calibration import calibrate as calibrate
from ptrm_jax.metrics.estimators import (
    best_q_at_k as best_q_at_k,
    mode_at_k as mode_at_k,
    pass_at_k as pass_at_k,
    q_auc as q_auc,
    q_auc_interval as q_auc_interval,
    q_sign_accuracy as q_sign_accuracy,
)
from ptrm_jax.metrics.intervals import (
    Interval as Interval,
    interval as interval,
    paired_difference as paired_difference,
    ratio_interval as ratio_interval,
    seed_spread as seed_spread,
)
from ptrm_jax.metrics.rollouts import (
    Rollouts as Rollouts,
    best_steps as best_steps,
)
from ptrm_jax.metrics.stopping import (
    Replayed as Replayed,
    allocate as allocate,
    fit_chance as fit_chance,
    replay as replay,
)
