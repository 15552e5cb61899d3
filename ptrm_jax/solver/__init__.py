"""PTRM: noisy rollouts and the choice among them."""

from ptrm_jax.solver.selection import (
    Selection as Selection,
    best_q as best_q,
    mode as mode,
)
from ptrm_jax.solver.solve import (
    LaneResults as LaneResults,
    Lanes as Lanes,
    Solution as Solution,
    Trajectory as Trajectory,
    add_noise as add_noise,
    check_key as check_key,
    check_params as check_params,
    check_sigma as check_sigma,
    check_solve as check_solve,
    choose as choose,
    deep_recursion as deep_recursion,
    energy as energy,
    initial_carry as initial_carry,
    langevin_chain as langevin_chain,
    langevin_key as langevin_key,
    langevin_update as langevin_update,
    make_lanes as make_lanes,
    noise_key as noise_key,
    random_direction as random_direction,
    read_heads as read_heads,
    run_lanes as run_lanes,
    solve as solve,
    step as step,
)
