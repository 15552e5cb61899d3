"""Checks of the solver's arguments, on the host, before anything is traced."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ptrm_jax.config import check_int, whole_number
from ptrm_jax.errors import InputError, mismatches
from ptrm_jax.model import TRM, Carry, Params, param_shapes, path_name
from ptrm_jax.puzzles import Array, Puzzles, check_puzzles


def check_key(key: jax.Array) -> None:
    """Raises InputError unless `key` is one typed threefry key."""
    remedy = "make it with jax.random.key(seed, impl='threefry2x32')"
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise InputError(f"key must be a typed JAX key; got {_brief(key)}; {remedy}")
    if key.shape != ():
        raise InputError(f"key must be a single key; got shape {list(key.shape)}")
    if str(jax.random.key_impl(key)) != "threefry2x32":
        # rbg streams depend on vmap and layout, so noise would too.
        raise InputError(f"key must be threefry2x32; got {jax.random.key_impl(key)}; {remedy}")


def check_sigma(sigma: jax.Array | float) -> None:
    """Raises InputError unless sigma is a scalar, and finite and >= 0 where its value is known."""
    if jnp.shape(sigma) != ():
        raise InputError(
            f"sigma must be a scalar; got shape {list(jnp.shape(sigma))}; use jax.vmap over solve "
            "for several"
        )
    if isinstance(sigma, jax.core.Tracer):
        return
    value = float(sigma)
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"sigma must be finite and >= 0; got {value}")


def check_solve(
    model: TRM,
    params: Params,
    key: jax.Array,
    puzzles: Puzzles,
    sigma: jax.Array | float,
    num_rollouts: int,
    rollouts: Array | None = None,
    name: str = "num_rollouts",
) -> Array:
    """Raises InputError for arguments that `solve` refuses; returns the rollout ids, [K] int32.

    `name` is that of `num_rollouts` in the caller's arguments.
    """
    check_key(key)
    check_sigma(sigma)
    check_params(model, params)
    check_puzzles(model.config, puzzles)
    if rollouts is None:
        return np.arange(whole_number(name, num_rollouts, 1), dtype=np.int32)
    if jnp.ndim(rollouts) != 1 or jnp.size(rollouts) == 0:
        raise InputError(f"rollouts must have shape [K], K >= 1; got {list(jnp.shape(rollouts))}")
    check_at_least("rollouts", rollouts, 0)
    return jnp.asarray(rollouts, jnp.int32)


_param_shapes = functools.lru_cache(maxsize=64)(param_shapes)


def check_params(model: TRM, params: Params) -> None:
    """Raises InputError naming every missing, unexpected and misshapen parameter."""
    problems = mismatches(
        {name: leaf.shape for name, leaf in _param_shapes(model).items()},
        {
            path_name(path): jnp.shape(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        },
        lambda name, want, got: f"{name} has shape {list(got)}, expected {list(want)}",
    )
    if problems:
        raise InputError("params are not this model's: " + "; ".join(problems))


def check_carry(model: TRM, params: Params, carry: Carry, puzzles: Puzzles, lane_tile: int) -> None:
    """Raises InputError for arguments that `deep_recursion` refuses."""
    check_int("lane_tile", lane_tile, 1)
    check_params(model, params)
    check_puzzles(model.config, puzzles)
    shape = (puzzles.inputs.shape[0], model.config.length, model.config.hidden_size)
    for name in Carry._fields:
        state = getattr(carry, name)
        if jnp.shape(state) != shape:
            raise InputError(
                f"carry.{name} must have shape {list(shape)}; got {list(jnp.shape(state))}"
            )
        if state.dtype != model.precision.dtype:
            raise InputError(
                f"carry.{name} must be in the compute dtype {model.precision.dtype}; got "
                f"{state.dtype}"
            )


def check_at_least(name: str, value: Array | int, minimum: int) -> None:
    """Raises InputError unless `value` is an integer array, >= minimum where it is known."""
    if isinstance(value, jax.core.Tracer):
        return
    if not np.issubdtype(np.asarray(value).dtype, np.integer) or np.min(value) < minimum:
        raise InputError(f"{name} must be whole numbers >= {minimum}; got {_brief(value)}")


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
