"""PTRM: noisy rollouts and the choice among them."""

from ptrm_jax.solver.anytime import (
    AnytimeSolution as AnytimeSolution,
    PoolUse as PoolUse,
    make_rule as make_rule,
    run_pool as run_pool,
    solve_anytime as solve_anytime,
    tiles_of_pool as tiles_of_pool,
)
from ptrm_jax.solver.checks import (
    check_key as check_key,
    check_params as check_params,
    check_sigma as check_sigma,
    check_solve as check_solve,
)
from ptrm_jax.solver.langevin import (
    energy as energy,
    langevin_chain as langevin_chain,
    langevin_update as langevin_update,
)
from ptrm_jax.solver.noise import (
    add_noise as add_noise,
    langevin_key as langevin_key,
    noise_key as noise_key,
    random_direction as random_direction,
)
from ptrm_jax.solver.results import (
    LaneResults as LaneResults,
    Solution as Solution,
    Trajectory as Trajectory,
)
from ptrm_jax.solver.selection import (
    Selection as Selection,
    best_q as best_q,
    check_selection as check_selection,
    mode as mode,
)
from ptrm_jax.solver.solve import (
    choose as choose,
    deep_recursion as deep_recursion,
    initial_carry as initial_carry,
    read_heads as read_heads,
    run_lanes as run_lanes,
    solve as solve,
    step as step,
)
from ptrm_jax.solver.tiles import (
    Lanes as Lanes,
    make_lanes as make_lanes,
    map_tiles as map_tiles,
)
