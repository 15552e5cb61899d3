"""PTRM: noisy rollouts and the choice among them."""

from ptrm_jax.solver.selection import (
    Selection as Selection,
)
from ptrm_jax.solver.selection import (
    best_q as best_q,
)
from ptrm_jax.solver.selection import (
    mode as mode,
)
from ptrm_jax.solver.solve import (
    LaneResults as LaneResults,
)
from ptrm_jax.solver.solve import (
    Lanes as Lanes,
)
from ptrm_jax.solver.solve import (
    Solution as Solution,
)
from ptrm_jax.solver.solve import (
    Trajectory as Trajectory,
)
from ptrm_jax.solver.solve import (
    add_noise as add_noise,
)
from ptrm_jax.solver.solve import (
    check_key as check_key,
)
from ptrm_jax.solver.solve import (
    check_params as check_params,
)
from ptrm_jax.solver.solve import (
    check_sigma as check_sigma,
)
from ptrm_jax.solver.solve import (
    check_solve as check_solve,
)
from ptrm_jax.solver.solve import (
    choose as choose,
)
from ptrm_jax.solver.solve import (
    deep_recursion as deep_recursion,
)
from ptrm_jax.solver.solve import (
    energy as energy,
)
from ptrm_jax.solver.solve import (
    initial_carry as initial_carry,
)
from ptrm_jax.solver.solve import (
    langevin_chain as langevin_chain,
)
from ptrm_jax.solver.solve import (
    langevin_key as langevin_key,
)
from ptrm_jax.solver.solve import (
    langevin_update as langevin_update,
)
from ptrm_jax.solver.solve import (
    make_lanes as make_lanes,
)
from ptrm_jax.solver.solve import (
    noise_key as noise_key,
)
from ptrm_jax.solver.solve import (
    random_direction as random_direction,
)
from ptrm_jax.solver.solve import (
    read_heads as read_heads,
)
from ptrm_jax.solver.solve import (
    run_lanes as run_lanes,
)
from ptrm_jax.solver.solve import (
    solve as solve,
)
from ptrm_jax.solver.solve import (
    step as step,
)
