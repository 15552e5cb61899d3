"""Langevin dynamics on z between supervision steps, in the energy -log sigmoid(Q).

Source: PTRM, Appendix C.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from ptrm_jax.config import DEFAULT_LANE_TILE, Langevin
from ptrm_jax.model import TRM, Carry, Params, rounded
from ptrm_jax.puzzles import Puzzles
from ptrm_jax.solver.checks import check_carry
from ptrm_jax.solver.noise import Noise, langevin_noise
from ptrm_jax.solver.tiles import TileModel, map_tiles, swap_lanes, tile_model


def langevin_update(
    z: jax.Array, gradient: jax.Array | None, xi: jax.Array, step_size: float
) -> jax.Array:
    """z - eta * gradient + sqrt(2 eta) * xi: one step of the unadjusted Langevin algorithm.

    The increment is computed in float32, cast to the dtype of z and added, as by `add_noise`.

    Args:
      z: [..., L, C].
      gradient: of the energy at z, like z; None for the control without it.
      xi: [..., L, C] float32 standard normal.
      step_size: eta.
    """
    move = math.sqrt(2 * step_size) * xi
    if gradient is not None:
        move = move - step_size * gradient.astype(jnp.float32)
    return rounded(z + rounded(move.astype(z.dtype)))


def langevin_chain(
    z: jax.Array,
    gradient: Callable[[jax.Array], jax.Array],
    draw: Callable[[jax.Array], jax.Array],
    langevin: Langevin,
) -> jax.Array:
    """z after N updates; their stationary law tends to exp(-E), normalised, as eta tends to 0.

    Args:
      z: [..., L, C].
      gradient: of the energy, at z; not called without `langevin.gradient`.
      draw: the standard normal draws of update n = 1..N, float32, like z.
      langevin: N, eta, and whether to use the gradient.
    """

    def update(z: jax.Array, n: jax.Array) -> tuple[jax.Array, None]:
        slope = gradient(z) if langevin.gradient else None
        return langevin_update(z, slope, draw(n), langevin.step_size), None

    z, _ = lax.scan(update, z, jnp.arange(1, langevin.num_updates + 1, dtype=jnp.int32))
    return z


def langevin_steps(
    net: TileModel, carry: Carry, x: jax.Array, t: jax.Array, noise: Noise, langevin: Langevin
) -> Carry:
    """A tile's carry after the updates between step t - 1 and step t; none before the first step.

    Args:
      net: the network.
      carry: y and z, [L, T, C] each.
      x: [L, T, C].
      t: number of the step that follows; scalar, or [T], one for each lane.
      noise: of the tile.
      langevin: the updates.
    """

    def move(carry: Carry) -> Carry:
        shape = (carry.z.shape[0], carry.z.shape[2])
        z = langevin_chain(
            carry.z,
            gradient=lambda z: tile_energy(net, z, carry.y, x)[1],
            draw=lambda n: langevin_noise(noise, t - 1, n, shape),
            langevin=langevin,
        )
        return carry._replace(z=z)

    moved = lax.cond(jnp.any(t > 1), move, lambda carry: carry, carry)
    if t.ndim == 0:
        return moved
    return Carry(carry.y, jnp.where((t > 1)[None, :, None], moved.z, carry.z))


def tile_energy(
    net: TileModel, z: jax.Array, y: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`energy` of a tile, states [L, T, C]: energies [T], gradients [L, T, C]."""

    def total(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Lanes without vmap: see the docstring of `ptrm_jax.model.trm`.
        f = functools.partial(net.apply, method=TRM.f)
        injection = rounded(y + x)
        # Unrolled: a loop would copy the residuals of every iteration into one stack.
        for _ in range(net.L_cycles):
            z = f(z, injection)
        energies = jax.nn.softplus(-net.apply(f(y, z), method=TRM.heads).q_logits[:, 0])
        return jnp.sum(energies), energies

    # No lane's energy depends on another's z, so the gradient of the sum is that of every lane.
    gradient, energies = jax.grad(total, has_aux=True)(z)
    return energies, gradient


def energy(
    model: TRM,
    params: Params,
    carry: Carry,
    puzzles: Puzzles,
    *,
    lane_tile: int = DEFAULT_LANE_TILE,
) -> tuple[jax.Array, jax.Array]:
    """The energy E(z) of Langevin dynamics, and its gradient.

    E(z) = -log sigmoid(f_Q(y')), where y' is the result of ONE latent recursion from (x, y, z):
    L_cycles updates of z, then one of y; the part that training differentiates. The paper says that
    the gradient flows back through the last latent recursion, but not from which state: this is
    our reading. The recursion serves only to compute the energy; the state does not advance.

    Args:
      model: the network.
      params: its parameters.
      carry: y and z, [B, L, C] each.
      puzzles: B puzzles.
      lane_tile: puzzles that go through the network together.

    Returns:
      energies [B] float32; gradients with respect to z, [B, L, C] in the compute dtype.

    Raises:
      InputError: as `deep_recursion`.
    """
    check_carry(model, params, carry, puzzles, lane_tile)
    return _energy(model, params, carry, puzzles, lane_tile)


@functools.partial(jax.jit, static_argnames=("model", "lane_tile"))
def _energy(
    model: TRM, params: Params, carry: Carry, puzzles: Puzzles, lane_tile: int
) -> tuple[jax.Array, jax.Array]:
    net = tile_model(model, params)

    def of_tile(batch: tuple[Carry, Puzzles]) -> tuple[jax.Array, jax.Array]:
        carry, puzzles = swap_lanes(batch[0]), batch[1]
        x = net.embed(puzzles.inputs, puzzles.puzzle_identifiers)
        energies, gradient = tile_energy(net, carry.z, carry.y, x)
        return energies, swap_lanes(gradient)

    return map_tiles(of_tile, (carry, puzzles), lane_tile)
