"""Scores of rollouts against labels, and their uncertainty."""

from ptrm_jax.metrics.estimators import (
    Bools as Bools,
)
from ptrm_jax.metrics.estimators import (
    Floats as Floats,
)
from ptrm_jax.metrics.estimators import (
    Interval as Interval,
)
from ptrm_jax.metrics.estimators import (
    Ints as Ints,
)
from ptrm_jax.metrics.estimators import (
    answer_ids as answer_ids,
)
from ptrm_jax.metrics.estimators import (
    best_q_at_k as best_q_at_k,
)
from ptrm_jax.metrics.estimators import (
    cell_accuracy as cell_accuracy,
)
from ptrm_jax.metrics.estimators import (
    exact as exact,
)
from ptrm_jax.metrics.estimators import (
    first_k_best_q as first_k_best_q,
)
from ptrm_jax.metrics.estimators import (
    first_k_mode as first_k_mode,
)
from ptrm_jax.metrics.estimators import (
    first_k_pass as first_k_pass,
)
from ptrm_jax.metrics.estimators import (
    interval as interval,
)
from ptrm_jax.metrics.estimators import (
    mode_at_k as mode_at_k,
)
from ptrm_jax.metrics.estimators import (
    paired_difference as paired_difference,
)
from ptrm_jax.metrics.estimators import (
    pass_at_k as pass_at_k,
)
from ptrm_jax.metrics.estimators import (
    q_auc as q_auc,
)
from ptrm_jax.metrics.estimators import (
    q_auc_interval as q_auc_interval,
)
from ptrm_jax.metrics.estimators import (
    q_sign_accuracy as q_sign_accuracy,
)
from ptrm_jax.metrics.estimators import (
    ratio_interval as ratio_interval,
)
from ptrm_jax.metrics.estimators import (
    seed_spread as seed_spread,
)
from ptrm_jax.metrics.estimators import (
    token_mask as token_mask,
)
from ptrm_jax.metrics.estimators import (
    valid_rows as valid_rows,
)
