"""Sweeps over sigma, K and D."""

from ptrm_jax.sweep.run import (
    CHOICE_NAMES as CHOICE_NAMES,
)
from ptrm_jax.sweep.run import (
    CHOICES as CHOICES,
)
from ptrm_jax.sweep.run import (
    INPUT_ERRORS as INPUT_ERRORS,
)
from ptrm_jax.sweep.run import (
    Choice as Choice,
)
from ptrm_jax.sweep.run import (
    Cost as Cost,
)
from ptrm_jax.sweep.run import (
    Incomplete as Incomplete,
)
from ptrm_jax.sweep.run import (
    Record as Record,
)
from ptrm_jax.sweep.run import (
    Result as Result,
)
from ptrm_jax.sweep.run import (
    Row as Row,
)
from ptrm_jax.sweep.run import (
    Run as Run,
)
from ptrm_jax.sweep.run import (
    Shard as Shard,
)
from ptrm_jax.sweep.run import (
    Sweep as Sweep,
)
from ptrm_jax.sweep.run import (
    SweepConfig as SweepConfig,
)
from ptrm_jax.sweep.run import (
    baselines as baselines,
)
from ptrm_jax.sweep.run import (
    best_q as best_q,
)
from ptrm_jax.sweep.run import (
    calibrate as calibrate,
)
from ptrm_jax.sweep.run import (
    choices as choices,
)
from ptrm_jax.sweep.run import (
    collect as collect,
)
from ptrm_jax.sweep.run import (
    cost as cost,
)
from ptrm_jax.sweep.run import (
    has_rules as has_rules,
)
from ptrm_jax.sweep.run import (
    left as left,
)
from ptrm_jax.sweep.run import (
    mode_at as mode_at,
)
from ptrm_jax.sweep.run import (
    over_seeds as over_seeds,
)
from ptrm_jax.sweep.run import (
    pass_at as pass_at,
)
from ptrm_jax.sweep.run import (
    plan_runs as plan_runs,
)
from ptrm_jax.sweep.run import (
    prepare as prepare,
)
from ptrm_jax.sweep.run import (
    run as run,
)
from ptrm_jax.sweep.run import (
    run_metrics as run_metrics,
)
from ptrm_jax.sweep.run import (
    run_name as run_name,
)
from ptrm_jax.sweep.run import (
    runs_of as runs_of,
)
from ptrm_jax.sweep.run import (
    summary as summary,
)
from ptrm_jax.sweep.run import (
    unit_steps as unit_steps,
)
from ptrm_jax.sweep.run import (
    valid_then_q as valid_then_q,
)
from ptrm_jax.sweep.run import (
    validity as validity,
)
from ptrm_jax.sweep.run import (
    widths as widths,
)
from ptrm_jax.sweep.run import (
    work as work,
)
