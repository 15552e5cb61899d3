"""Any number of devices gives the same bits as the solver alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_puzzles, small_model

from ptrm_jax import TRM, Langevin, Save, load, mesh, read_dataset, solve
from ptrm_jax.config import Backend

KEY = jax.random.key(7)


@functools.cache
def reference() -> tuple:
    model, params = small_model("mlp_t")
    puzzles = random_puzzles(model, 7)
    settings = {"num_rollouts": 5, "depth": 2, "sigma": 0.3, "lane_tile": 2}
    save = Save(answers=True, q_logits=True)
    alone = solve(model, params, KEY, puzzles, **settings, save=save)
    return model, params, puzzles, settings | {"save": save}, alone


@pytest.mark.parametrize("backend", ["pmap", "mesh"])
@pytest.mark.parametrize("num_devices", [1, 2, 3, 8])
def test_devices_change_no_bit(num_devices: int, backend: Backend) -> None:
    """35 lanes in tiles of 2: whole shares, ragged shares, and devices with only padding."""
    model, params, puzzles, settings, alone = reference()
    devices = mesh.local_devices(num_devices)
    solution = mesh.solve(
        model,
        mesh.replicate(params, devices),
        *(KEY, puzzles),
        **settings,
        devices=devices,
        backend=backend,
    )
    for got, expected in zip(jax.tree.leaves(solution), jax.tree.leaves(alone), strict=True):
        assert isinstance(got, np.ndarray)
        assert got.dtype == expected.dtype and got.shape == expected.shape
        assert got.tobytes() == np.asarray(expected).tobytes()


def test_devices_change_no_bit_of_langevin_dynamics() -> None:
    model, params, puzzles, settings, _ = reference()
    model = TRM(dataclasses.replace(model.config, num_layers=1, L_cycles=1), model.precision)
    params = params | {"network": {"layers_0": params["network"]["layers_0"]}}
    args = model, params, KEY, puzzles.take(slice(3))
    settings = settings | {"num_rollouts": 1, "langevin": Langevin(1, 0.05)}
    alone = solve(*args, **settings)
    for backend in ("pmap", "mesh"):
        devices = mesh.local_devices(2)
        solution = mesh.solve(*args, **settings, devices=devices, backend=backend)
        for got, expected in zip(jax.tree.leaves(solution), jax.tree.leaves(alone), strict=True):
            assert got.tobytes() == np.asarray(expected).tobytes()


@functools.cache
def embedded() -> tuple:
    """The bundled model, and what it does with 5 puzzles x 4 rollouts without any device layout."""
    model, params = load("sudoku6")
    puzzles = read_dataset("sudoku6").head(5).puzzles
    settings = {"num_rollouts": 4, "depth": 3, "sigma": 0.5, "lane_tile": 2}
    settings["save"] = Save(answers=True, q_logits=True)
    return model, params, puzzles, settings, solve(model, params, KEY, puzzles, **settings)


@pytest.mark.parametrize("backend", ["pmap", "mesh"])
@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_order_tiles_devices_and_backends_change_no_bit(num_devices: int, backend: Backend) -> None:
    """Of the embedded model: two orders of puzzles, ten tiles at once or in calls of 6 and 4."""
    model, params, puzzles, settings, alone = embedded()
    devices = mesh.local_devices(num_devices)
    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
        for calls in ([order], [order[:3], order[3:]]):
            for rows in map(np.array, calls):
                solution = mesh.solve(
                    *(model, params, KEY, puzzles.take(rows)),
                    **settings,
                    devices=devices,
                    backend=backend,
                )
                for got, expected in zip(
                    jax.tree.leaves(solution), jax.tree.leaves(alone), strict=True
                ):
                    assert got.tobytes() == np.asarray(expected)[rows].tobytes()


@pytest.mark.parametrize("num_puzzles", [1, 3, 4, 5])
def test_batches_around_the_number_of_devices(num_puzzles: int) -> None:
    model, params, puzzles, settings, alone = reference()
    devices = mesh.local_devices(4)
    some = puzzles.take(slice(num_puzzles))
    one = settings | {"num_rollouts": 1}
    solution = mesh.solve(model, params, KEY, some, **one, devices=devices)
    expected = np.asarray(alone.rollout_q_logits)[:num_puzzles, :1]
    assert solution.rollout_q_logits.tobytes() == expected.tobytes()


@pytest.mark.parametrize("backend", ["pmap", "mesh"])
def test_all_devices_are_used(backend: Backend) -> None:
    """35 lanes in tiles of 2 on 8 devices: 6 lanes each, the last one repeated as padding."""
    shapes = []

    def share(scale: jax.Array, lanes: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        shapes.append(lanes[1].shape)
        position, values = lanes
        return scale * position, jnp.broadcast_to(jnp.sum(values), position.shape)

    run = mesh.map_lanes(share, mesh.local_devices(8), tile=2, backend=backend)
    position = np.arange(35, dtype=np.float32)
    scaled, sums = run(jnp.float32(2), (position, np.stack([position, position], 1)))
    assert shapes[0] == (6, 2)
    np.testing.assert_array_equal(scaled, 2 * position)
    padded = np.concatenate([position, np.full(13, 34.0)])
    np.testing.assert_array_equal(sums, np.repeat(2 * padded.reshape(8, 6).sum(1), 6)[:35])


def test_bad_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="devices must be at most 8"):
        mesh.local_devices(9)
    with pytest.raises(ValueError, match="devices must be a whole number >= 1; got 0"):
        mesh.local_devices(0)
    model, params, puzzles, settings, _ = reference()
    with pytest.raises(ValueError, match="sigma must be finite"):
        mesh.solve(model, params, KEY, puzzles, **settings | {"sigma": -1.0})
    with pytest.raises(ValueError, match="backend must be one of pmap, mesh; got 'pjit'"):
        mesh.solve(model, params, KEY, puzzles, **settings, backend="pjit")  # type: ignore
