"""Work units: they cover the work once, and what they leave comes back whole."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from ptrm_jax import metrics
from ptrm_jax.errors import InputError
from ptrm_jax.sweep import SweepConfig, folder, measure, plan
from ptrm_jax.sweep.measure import Finished, Measured
from ptrm_jax.sweep.plan import Unit


@pytest.mark.parametrize(
    ("rollouts", "num_puzzles", "lanes"),
    [(1, 1, 8), (8, 64, 256), (100, 7, 64), (3, 10, 8), (5, 5, 5), (5, 5, 1), (101, 2, 34)],
)
def test_units_cover_everything_once(rollouts: int, num_puzzles: int, lanes: int) -> None:
    planned = plan.plan(
        sigma=0.3, seed=2, depth=4, rollouts=rollouts, num_puzzles=num_puzzles, lanes=lanes
    )
    pairs = [
        pair
        for unit in planned
        for pair in itertools.product(range(*unit.puzzles), range(*unit.rollouts))
    ]
    assert sorted(pairs) == list(itertools.product(range(num_puzzles), range(rollouts)))
    assert sum(unit.rollout_steps for unit in planned) == num_puzzles * rollouts * 4
    (shape,) = {unit.shape for unit in planned}
    assert all(unit.lanes <= shape[0] * shape[1] <= lanes for unit in planned)
    assert planned[0].lanes == shape[0] * shape[1]
    # As few as can be for one width.
    assert len(planned) <= -(-rollouts // shape[1]) * -(-num_puzzles // max(1, lanes // shape[1]))


PAPER = {"rollouts": 100, "depth": 16}
"""With the equal-compute TRM of 1,600 steps beside it."""


@pytest.mark.parametrize("tile", [16, 64, 256])
def test_eight_shards_are_even(tile: int) -> None:
    """512 puzzles: the deterministic TRM was one unit at a tile of 256, half of all work."""
    runs = plan.plan_runs(SweepConfig(**PAPER), 512, tile, None)
    units = [unit for run in runs for unit in run]
    assert plan.speed_up(units, 8) >= 7.5
    for count in (2, 3, 4, 8):
        shares = plan.deal(units, count)
        assert sorted(unit for share in shares for unit in share) == sorted(units)
        loads = [sum(unit.cost for unit in share) for share in shares]
        assert max(loads) - min(loads) <= max(unit.cost for unit in units)
        assert plan.speed_up(units, count) == sum(loads) / max(loads)
        assert all(plan.Shard(i, count).of(units) == share for i, share in enumerate(shares))
    # Bounded by rollout-steps, or by four tiles where these are deep.
    bound = plan.default_unit_steps(tile)
    for run in runs:
        assert run[0].cost <= max(bound, 64 * run[0].depth)
        assert np.prod(run[0].shape) >= 4 * plan.tile_of(tile, run[0].depth)


def test_puzzles_that_may_stop_are_dealt_evenly() -> None:
    config = SweepConfig(rollouts=32, stop_q=2.0)
    units = [unit for run in plan.plan_runs(config, 512, 64, None) for unit in run]
    assert plan.speed_up(units, 8) >= 7.5
    assert all(unit.cost == -(-unit.rollout_steps // 10) for unit in units if unit.stop)


def test_deep_runs_have_smaller_tiles() -> None:
    tiles = [plan.tile_of(256, depth) for depth in (1, 64, 65, 128, 129, 1600, 6400)]
    assert tiles == [256, 256, 128, 128, 64, 16, 16]
    assert [plan.tile_of(tile, 6400) for tile in (1, 8, 16, 17, 48)] == [1, 8, 16, 16, 16]


@pytest.mark.parametrize("tile", [1, 8])
@pytest.mark.parametrize("size", [{}, PAPER, {"stop_q": 2.0}], ids=["default", "paper", "stops"])
def test_small_tiles_are_planned_as_ever(tile: int, size: dict) -> None:
    """The rule of 0.4.0, written out; with larger tiles its folders are still read."""
    config = SweepConfig(**size)
    for tile_, version in ((tile, None), (tile, 1), (256, 1)):
        found = plan.plan_runs(config, 80, tile_, None, version)
        for run in found:
            depth = run[0].depth
            lanes = max(8 * tile_, 512 * tile_ // depth)
            names = {"sigma": run[0].sigma, "seed": run[0].seed, "depth": depth}
            rest = {"rollouts": run[-1].rollouts[1], "stop": run[0].stop}
            assert run == plan.plan(**names, **rest, num_puzzles=80, lanes=lanes)
    with pytest.raises(InputError, match="plan must be 1 or 2; got 3"):
        plan.plan_runs(config, 80, tile, None, 3)


def test_a_digest_is_of_everything() -> None:
    unit = Unit(0.3, 0, 16, (0, 8), (0, 4), (8, 4))
    identity = {"data": "a", "settings": {"sigmas": [0.3]}}
    digests = {
        unit.digest(identity),
        unit.digest(identity | {"data": "b"}),
        *(
            unit._replace(**change).digest(identity)
            for change in (
                *({"sigma": 0.1}, {"seed": 1}, {"depth": 8}, {"puzzles": (8, 16)}),
                *({"rollouts": (4, 8)}, {"shape": (9, 4)}, {"langevin": True}),
            )
        ),
    }
    assert len(digests) == 9
    # That of a journal older than Langevin updates.
    assert Unit(0.3, 0, 16, (0, 8), (0, 4), (8, 4)).digest(identity) == "3a225f5d5dde9c92"
    assert unit.digest({"settings": {"sigmas": [0.3]}, "data": "a"}) == unit.digest(identity)


def test_answers_have_digests_of_their_own() -> None:
    """All answers of three cells and 12 tokens, all permutations of nine; and long answers."""
    small = np.array(list(itertools.product(range(12), repeat=3)))
    orders = np.array(list(itertools.permutations(range(7))))
    for answers in (small, orders):
        assert len(np.unique(measure.answer_digest(answers))) == len(answers)
    assert measure.answer_digest(small).dtype == np.uint64
    assert measure.answer_digest(small.reshape(12, 12, 12, 3)).shape == (12, 12, 12)
    long = np.zeros((901, 900), np.int32)
    long[np.arange(900), np.arange(900)] = 1
    assert len(np.unique(measure.answer_digest(long))) == 901
    # Halves of a digest name answers as the answers themselves do.
    rng = np.random.default_rng(0)
    rollouts = rng.integers(0, 2, (5, 20, 4))
    halves = measure.answer_digest(rollouts)[..., None].view(np.uint32)
    np.testing.assert_array_equal(metrics.answer_ids(halves), metrics.answer_ids(rollouts))


def measured(keep_steps: Sequence[int] = ()) -> tuple[Measured, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    answers = rng.integers(0, 3, (4, 6, 5, 2)).astype(np.int32)
    labels = rng.integers(0, 3, (4, 2)).astype(np.int32)
    q = rng.normal(size=(4, 6, 5)).astype(np.float32)
    finite = rng.random((4, 6, 5)) < 0.9
    valid = rng.random((4, 6, 5)) < 0.5
    return (
        measure.measure(answers, q, finite, labels, 0, valid=valid, keep_steps=keep_steps),
        answers,
        labels,
    )


def test_measured_is_against_the_labels() -> None:
    found, answers, labels = measured()
    for b, k, d in np.ndindex(4, 6, 5):
        counts = labels[b] != 0
        hits = (answers[b, k, d] == labels[b])[counts]
        assert found.correct[b, k, d] == (hits.all() and found.finite[b, k, d] and counts.any())
        if counts.any():
            assert found.cell_accuracy[b, k, d] == np.float32(hits.mean())
    assert not (found.valid & ~found.finite).any() and found.valid.any()
    assert found.tokens.shape == (4, 6, 0, 2)
    for keep, expected in ((range(1, 6), answers), ([2, 5], answers[:, :, [1, 4]])):
        kept, _, _ = measured(keep)
        np.testing.assert_array_equal(kept.tokens, expected)
        assert kept.tokens.dtype == np.uint8
    without = measure.measure(answers, found.q_logit, found.finite, labels, 0)
    assert not without.valid.any() and without.valid.shape == found.valid.shape


@pytest.mark.parametrize("keep_steps", [(), (5,), range(1, 6)])
def test_a_packed_unit_comes_back(keep_steps: Sequence[int]) -> None:
    found, *_ = measured(keep_steps)
    finished = Finished(Unit(0.1, 3, 5, (4, 8), (6, 12), (4, 6), True), found, 1.5, 0.25)
    digest, back = folder.unpack(folder.pack("abc", finished))
    assert digest == "abc" and back.unit == finished.unit and back[2:] == (1.5, 0.25)
    assert hash(back.unit) == hash(finished.unit)
    for got, expected in zip(back.measured, found, strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_units_are_put_together_in_their_places() -> None:
    whole, *_ = measured(range(1, 6))
    planned = plan.plan(sigma=0.1, seed=0, depth=5, rollouts=6, num_puzzles=4, lanes=4)
    assert len(planned) > 4
    parts = [
        Finished(
            unit,
            Measured(*(f[slice(*unit.puzzles), slice(*unit.rollouts)] for f in whole)),
            *(0.0, 0.0),
        )
        for unit in planned
    ]
    for order in (parts, parts[::-1]):
        for got, expected in zip(measure.assemble(order), whole, strict=True):
            np.testing.assert_array_equal(got, expected)
