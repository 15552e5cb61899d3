"""The frontier of accuracy against compute, on planted rollouts."""

import dataclasses
import re

import numpy as np
import pytest
from planted import run, study

from ptrm_jax import Stop, sweep
from ptrm_jax.analysis import frontier
from ptrm_jax.analysis.frontier import Point, Settings
from ptrm_jax.analysis.study import OneSigma
from ptrm_jax.errors import InputError
from ptrm_jax.metrics import Rollouts
from ptrm_jax.metrics.calibration import replay_on

# Four puzzles, two rollouts, two steps: right at first, right at last, fooled at first, hopeless.
Q = np.array(
    [[[3, -1], [-1, -1]], [[0, 1], [0, 0]], [[2, 2], [3, 3]], [[-3, -3], [-3, -3]]], np.float32
)
CORRECT = np.array([[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 1], [1, 1]], [[0, 0], [0, 0]]]) == 1
TRM_Q = np.array([[1, 0], [0, 1], [0, 0], [0, 0]], np.float32)[:, None]
TRM_CORRECT = np.array([[1, 0], [0, 1], [0, 0], [0, 0]])[:, None] == 1

SEARCH = OneSigma(rollouts=2, depth=2, sigma=0.1)


def scored(correct, q, sigma=0.0):
    return run(correct, sigma, q_logit=q, digest=correct.astype(np.uint64))


def planted(**settings):
    runs = scored(TRM_CORRECT, TRM_Q), scored(CORRECT, Q, 0.1)
    shown = study("frontier", Settings(search=SEARCH, **settings), *runs)[0]
    shown.caption = lambda result: "planted"
    return shown


def test_the_frontier_by_hand(tmp_path):
    shown = frontier.make(planted())
    values = {name: finding.value for name, finding in shown.findings.items()}
    assert values["trm_last"] == values["deep_last"] == 1 / 4
    assert values["trm_best"] == values["deep_best"] == 2 / 4
    assert (values["ptrm_last"], values["ptrm_best"], values["stop"]) == (2 / 4, 3 / 4, 2 / 4)
    assert (values["stop_steps"], values["stop_share"]) == (10 / 4, 10 / 16)
    assert (values["read_gain"], values["stop_over_best"]) == (1 / 4, -1 / 4)
    assert (values["cap_share"], values["cap_over_stop"]) == (6 / 16, 0)
    rows = {(row["curve"], row["point"]): (row["accuracy"], row["steps"]) for row in shown.rows}
    assert rows["stop at Q", "Q >= 2"] == (2 / 4, 10 / 4)
    assert rows["stop at Q", "Q >= 2.5"] == (3 / 4, (1 + 4 + 3 + 4) / 4)
    assert rows["stop at Q, twice in a row", "Q >= 2"] == (3 / 4, (4 + 4 + 2 + 4) / 4)
    assert rows["stop at Q, two rollouts agree", "Q >= 0"] == (2 / 4, (3 + 2 + 2 + 4) / 4)
    assert ("stop at Q", "Q >= 3.5") not in rows
    assert rows["PTRM, all K x D, read best", "K=2, D=1"] == (2 / 4, 2)
    assert rows["TRM by depth, read best", "K=1, D=1"] == (1 / 4, 1)
    assert "solves 25.0 %" in shown.reading[0] and "2.50 [" in shown.reading[1]
    # Once more from a folder, whose sigma need not be said.
    found = planted(sweep="DIR", q_logit=2.5)
    result = found.sweep()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "read", {"DIR": result}.__getitem__)
        other = frontier.make(found)
        assert other.findings["stop"].value == 3 / 4
        assert other.rows[0] == shown.rows[0]
        two = dataclasses.replace(result.search, sigmas=(0.2, 0.3))
        patch.setattr(sweep, "read", lambda folder: dataclasses.replace(result, search=two))
        with pytest.raises(InputError, match=re.escape("one of (0.2, 0.3) of DIR; got 0.1")):
            frontier.measure(found)
    other.write(tmp_path)
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="q_logit must be a number"):
        Settings(q_logit=float("nan"))


def test_the_envelope_has_what_nothing_cheaper_reaches():
    def point(name, solved, steps):
        return Point(name, np.array([solved]), np.full((1, 2), steps))

    points = [
        point("worse", [0, 0], 8),
        point("wide", [1, 1], 8),
        point("deep", [1, 0], 4),
        point("as good", [0, 1], 6),
    ]
    assert [each.name for each in frontier.envelope(points)] == ["deep", "wide"]


def test_a_shared_budget_costs_no_more_than_the_cap():
    rng = np.random.default_rng(0)
    q = rng.normal(rng.normal(0, 2, size=(40, 1, 1)), 1, size=(40, 8, 3)).astype(np.float32)
    rollouts, stop = Rollouts(q > 1, q), Stop(2.0)
    for cap in (1, 2, 8):
        capped = replay_on(rollouts, dataclasses.replace(stop, max_rollout_steps=3 * cap))
        shared = frontier.shared_budget(rollouts, stop, capped)
        assert shared.rollout_steps.sum() <= capped.rollout_steps.sum()
        assert shared.stopped.sum() >= capped.stopped.sum()
    for got, want in zip(shared, capped, strict=True):  # the whole compute
        assert (got == want).all()
    hopeless = Rollouts(q > 1, q - 100)
    assert frontier.shared_budget(hopeless, stop, capped) is None
