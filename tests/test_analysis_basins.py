"""Basin escape: counts by hand, closed forms of pass@k, and the plane in which paths are drawn."""

from pathlib import Path

import numpy as np
import planted
import pytest
from scipy import stats

from ptrm_jax.analysis import basins
from ptrm_jax.analysis.exhibit import NothingToShow
from ptrm_jax.analysis.pca import principal_plane
from ptrm_jax.analysis.study import OneSigma

# --- The plane -----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [3, 40])  # by the covariance, and by the inner products
def test_plane_of_a_cross(width: int) -> None:
    """Four points along one direction and two, nearer, along another."""
    points = np.zeros((6, width))
    points[:, :3] = [5.0, 5.0, 5.0]
    points[:4, 0] += [-3.0, -1.0, 1.0, 3.0]  # variance 20
    points[4:, 2] += [-1.0, 1.0]  # variance 2
    plane = principal_plane(points.reshape(2, 3, width))
    np.testing.assert_allclose(plane.share, [20 / 22, 2 / 22])
    np.testing.assert_allclose(plane.mean[:3], 5)
    np.testing.assert_allclose(plane.axes[:, :3], [[1, 0, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(
        plane.coordinates.reshape(6, 2),
        [[-3, 0], [-1, 0], [1, 0], [3, 0], [0, -1], [0, 1]],
        atol=1e-12,
    )


def test_plane_is_a_projection_with_a_fixed_sign() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 8, 30)) * np.linspace(3, 0.1, 30)
    plane = principal_plane(points, 3)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(plane.coordinates, (points - plane.mean) @ plane.axes.T)
    values = np.linalg.svd((points - plane.mean).reshape(40, 30), compute_uv=False) ** 2
    np.testing.assert_allclose(plane.share, values[:3] / values.sum())
    assert (np.take_along_axis(plane.axes, abs(plane.axes).argmax(1)[:, None], 1) > 0).all()
    # Points turned around have the same axes.
    np.testing.assert_allclose(principal_plane(-points, 3).axes, plane.axes, atol=1e-9)


def test_plane_beyond_the_rank_and_of_one_point() -> None:
    line = np.outer([0.0, 1.0, 2.0], [0.0, -4.0, 3.0, 0.0, 0.0])
    plane = principal_plane(line)
    np.testing.assert_allclose(plane.coordinates, [[5, 0], [0, 0], [-5, 0]], atol=1e-9)
    np.testing.assert_allclose(plane.share, [1, 0], atol=1e-12)
    np.testing.assert_array_equal(plane.axes[1], 0)
    alone = principal_plane(np.ones((4, 5)))
    assert not alone.coordinates.any() and np.isnan(alone.share).all()
    with pytest.raises(ValueError, match=r"num must be in 1\.\.5"):
        principal_plane(line, 6)


# --- Escapes -------------------------------------------------------------------------------------


def test_the_shown_puzzle_has_escapes_near_the_papers_share() -> None:
    escapes = np.zeros((5, 50), bool)
    escapes[1, 3:8] = True  # 10 %
    escapes[2, :3] = True  # 6 %: as near, but later
    escapes[3, :2] = True  # 4 %
    free = np.zeros(5, bool)
    assert basins.shown_puzzle(escapes, free) in (1, 2)
    escapes[2] = False
    assert basins.shown_puzzle(escapes, free) == 1
    # Puzzles that TRM never has right come first, if any of their rollouts escapes.
    assert basins.shown_puzzle(escapes, np.arange(5) == 3) == 3
    assert basins.shown_puzzle(escapes, np.arange(5) == 4) == 1
    assert basins.shown_puzzle(np.zeros((3, 4), bool), np.ones(3, bool)) == 0


def test_the_first_escape_is_counted_from_one() -> None:
    assert basins.first_escape(np.array([False, False, True, False, True])) == 3
    assert basins.first_escape(np.array([True])) == 1
    assert basins.first_escape(np.zeros(4, bool)) is None


def test_mixture_in_closed_form() -> None:
    # Uniform p: every count is as likely as any other, and E (1 - p)^k = 1 / (k + 1).
    uniform = basins.Mixture(0.25, 1.0, 1.0)
    np.testing.assert_allclose(uniform.counts(4), [0.25 + 0.15, 0.15, 0.15, 0.15, 0.15])
    assert uniform.pass_at(3) == pytest.approx(0.75 * 3 / 4)
    # Pass@k is the chance of at least one escape among k.
    other = basins.Mixture(0.1, 0.4, 2.5)
    for k in (1, 2, 7):
        assert other.pass_at(k) == pytest.approx(1 - other.counts(k)[0])
    expected = 0.9 * stats.betabinom(9, 0.4, 2.5).pmf(np.arange(10))
    expected[0] += 0.1
    np.testing.assert_allclose(other.counts(9), expected)


@pytest.mark.parametrize("never", [0.0, 0.4])
def test_fit_finds_what_was_planted(never: float) -> None:
    true = basins.Mixture(never, 1.5, 4.0)
    found = basins.fit(1000 * true.counts(24))
    np.testing.assert_allclose(found, true, atol=0.03, rtol=0.05)


def test_predictions_of_planted_shares() -> None:
    """Every puzzle escapes at one rollout in four, in both halves: all predictions agree."""
    half = np.tile([True, False, False, False], (6, 2))
    first, second = basins.predict(half, half, [1, 4], num_resamples=5)
    assert first.own.mean == first.common.mean == first.measured.mean == 0.25
    assert second.own.mean == pytest.approx(1 - 0.75**4)
    assert second.common.mean == pytest.approx(1 - 0.75**4)
    # Without replacement, two right of eight: 1 - C(6, 4) / C(8, 4).
    assert second.measured.mean == pytest.approx(1 - 15 / 70)
    assert second.own_gap.mean == pytest.approx((1 - 0.75**4) - (1 - 15 / 70))
    assert second.common_gap.mean == pytest.approx(second.own_gap.mean)


def test_one_share_for_puzzles_that_differ_predicts_too_much() -> None:
    rng = np.random.default_rng(3)
    p = np.repeat([0.0, 0.5], 20)[:, None]
    first, second = rng.random((40, 32)) < p, rng.random((40, 32)) < p
    (at,) = basins.predict(first, second, [8], num_resamples=20)
    truth = 0.5 * (1 - 0.5**8)
    assert at.measured.mean == pytest.approx(truth, abs=0.01)
    assert at.own.mean == pytest.approx(truth, abs=0.01)
    assert at.fitted.mean == pytest.approx(truth, abs=0.02)
    assert at.common.mean == pytest.approx(1 - 0.75**8, abs=0.02)
    assert at.common_gap.low > 0.2 and abs(at.own_gap.mean) < 0.02
    # The second half has no part in the predictions.
    (other,) = basins.predict(first, ~second, [8], num_resamples=20)
    assert (other.own, other.fitted, other.common) == (at.own, at.fitted, at.common)


# --- The figure ----------------------------------------------------------------------------------


@pytest.fixture
def study() -> tuple:
    """Ten puzzles: TRM has 0..4 right, had 5 right after step 1, never has the others right.

    Of four rollouts of puzzle 7 one escapes, the second; of puzzle 5 one is still right.
    """
    trm, noisy = np.zeros((10, 1, 3), bool), np.zeros((10, 4, 3), bool)
    trm[:5] = noisy[:5] = trm[5, :, 0] = noisy[5, 3] = noisy[7, 1, 1:] = True
    settings = basins.Settings(search=OneSigma(rollouts=4, depth=3))
    return planted.study("basins", settings, planted.run(trm), planted.run(noisy, 0.1))


def test_the_figure_tells_escapes_from_late_losses(study: tuple, tmp_path: Path) -> None:
    shown, asked = study
    exhibit = basins.make(shown)
    assert asked == [((7,), (0, 1, 2, 3), 0.1), ((7,), (0,), 0.0)]
    np.testing.assert_array_equal(exhibit.data["failed"], [5, 6, 7, 8, 9])
    np.testing.assert_array_equal(exhibit.data["stuck"], [False, True, True, True, True])
    assert exhibit.data["plane"].shape == (5, 3, 2) and exhibit.data["ends"].shape == (5, 2)
    values = {name: finding.value for name, finding in exhibit.findings.items()}
    expected = {
        "failed": 0.5,
        "escape_share": 2 / 20,
        "lost": 1 / 5,
        "escape_share_lost": 1 / 4,
        "escape_share_stuck": 1 / 16,
        "never": 3 / 5,
        # From rollouts 0 and 1: puzzle 7 has p = 1/2. Of 2 and 3, one solves puzzle 5.
        "pass_predicted": 0.75 / 5,
        "pass_measured": 1 / 5,
        "pass_common": 1 - 0.9**2,
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    assert "5 of 10 puzzles wrong" in exhibit.reading[0]
    assert "3 of the 5 puzzles are solved by none" in exhibit.reading[0]
    assert "Puzzle 7" in exhibit.reading[2] and "the first is number 2" in exhibit.reading[2]
    panels = [text.get_text() for ax in exhibit.figure.axes for text in ax.texts]
    assert [text for text in panels if len(text) == 1] == list("abcdef")
    assert all(f"{letter}: " in exhibit.caption for letter in "abcdef")
    assert {"basins.png", "basins.npz", "basins.csv"} < set(exhibit.write(tmp_path))


def test_nothing_to_show_without_a_failed_puzzle(study: tuple) -> None:
    shown, _ = study
    shown.sweep().deterministic.rollouts.correct[:] = True
    with pytest.raises(NothingToShow, match="solves all 10 puzzles"):
        basins.make(shown)


def test_nothing_to_show_of_one_rollout() -> None:
    settings = basins.Settings(search=OneSigma(rollouts=1, depth=3))
    wrong = planted.run(np.zeros((2, 1, 3), bool))
    shown, _ = planted.study("basins", settings, wrong)
    with pytest.raises(NothingToShow, match="no second half"):
        basins.make(shown)
