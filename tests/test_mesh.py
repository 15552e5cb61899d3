"""Any number of devices gives the same bits as the solver alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_puzzles, small_model

from ptrm_jax import Langevin, Save, Solution, load, mesh, read_dataset, solve
from ptrm_jax.config import Backend

KEY = jax.random.key(7)


def same(a: Solution, b: Solution) -> None:
    """`a` is numpy arrays with the bits of `b`."""
    for got, expected in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert isinstance(got, np.ndarray)
        assert got.dtype == expected.dtype and got.shape == expected.shape
        assert got.tobytes() == np.asarray(expected).tobytes()


@functools.cache
def reference(langevin: Langevin | None = None) -> tuple:
    model, params = small_model("mlp_t", num_layers=1, L_cycles=1)
    settings = {"num_rollouts": 5, "depth": 2, "lane_tile": 2, "langevin": langevin}
    settings["save"] = Save(answers=True, q_logits=True)
    args = model, params, KEY, random_puzzles(model, 7)
    return args, settings, solve(*args, **settings)


@pytest.mark.parametrize("backend", ["pmap", "mesh"])
@pytest.mark.parametrize(
    ("num_devices", "langevin"), [(1, None), (3, None), (8, None), (2, Langevin(1, 0.05))]
)
def test_devices_change_no_bit(
    num_devices: int, langevin: Langevin | None, backend: Backend
) -> None:
    """35 lanes in tiles of 2: whole shares, ragged shares, and devices with only padding."""
    (model, params, *args), settings, alone = reference(langevin)
    devices = mesh.local_devices(num_devices)
    placed = mesh.replicate(params, devices)
    same(mesh.solve(model, placed, *args, **settings, devices=devices, backend=backend), alone)


@pytest.mark.parametrize("backend", ["pmap", "mesh"])
def test_order_tiles_devices_and_backends_change_no_bit(backend: Backend) -> None:
    """Of the bundled model: another order of 5 puzzles, all at once or in calls of 2."""
    model, params = load("sudoku6")
    puzzles = read_dataset("sudoku6").head(5).puzzles
    settings = {"num_rollouts": 4, "depth": 3, "sigma": 0.5, "lane_tile": 2}
    settings["save"] = Save(answers=True, q_logits=True)
    alone = solve(model, params, KEY, puzzles, **settings)
    devices = mesh.local_devices(2)
    for rows in ([4, 2, 0, 3, 1], [3, 0], [4, 1]):
        some = puzzles.take(np.array(rows))
        solution = mesh.solve(
            model, params, KEY, some, **settings, devices=devices, backend=backend
        )
        same(solution, jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], alone))


@pytest.mark.parametrize("backend", ["pmap", "mesh"])
@pytest.mark.parametrize(
    ("num_devices", "num_lanes", "share"),
    [(4, 1, 2), (4, 7, 2), (4, 8, 2), (4, 9, 4), (8, 35, 6)],
)
def test_every_device_has_an_equal_share_of_whole_tiles(
    num_devices: int, num_lanes: int, share: int, backend: Backend
) -> None:
    """Tiles of 2 lanes; the last lane is repeated as padding."""
    shapes = []

    def fn(scale: jax.Array, lanes: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        shapes.append(lanes[1].shape)
        position, values = lanes
        return scale * position, jnp.broadcast_to(jnp.sum(values), position.shape)

    run = mesh.map_lanes(fn, mesh.local_devices(num_devices), tile=2, backend=backend)
    position = np.arange(num_lanes, dtype=np.float32)
    scaled, sums = run(jnp.float32(2), (position, np.stack([position, position], 1)))
    assert shapes[0] == (share, 2)
    np.testing.assert_array_equal(scaled, 2 * position)
    padded = np.minimum(np.arange(num_devices * share), num_lanes - 1)
    of_share = 2 * padded.reshape(num_devices, share).sum(1)
    np.testing.assert_array_equal(sums, np.repeat(of_share, share)[:num_lanes])


def test_bad_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="devices must be at most 8"):
        mesh.local_devices(9)
    with pytest.raises(ValueError, match="devices must be a whole number >= 1; got 0"):
        mesh.local_devices(0)
    args, settings, _ = reference()
    with pytest.raises(ValueError, match="sigma must be finite"):
        mesh.solve(*args, **settings, sigma=-1.0)
    with pytest.raises(ValueError, match="backend must be one of pmap, mesh; got 'pjit'"):
        mesh.solve(*args, **settings, backend="pjit")  # type: ignore
