"""Rules chosen on labelled puzzles, and budgets that puzzles share, on planted rollouts."""

import dataclasses
import math
import re

import numpy as np
import pytest
from conftest import load_experiment
from planted import run
from scipy import stats

from ptrm_jax import Stop, metrics, sweep
from ptrm_jax.errors import InputError
from ptrm_jax.metrics import Rollouts, calibration
from ptrm_jax.metrics.logistic import fit_logistic

INF = math.inf


# Chances.


def test_a_logistic_regression_recovers_its_weights():
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, size=(20_000, 2))
    logits = 0.5 + features @ [1.0, -0.7]
    fitted = fit_logistic(features, rng.random(20_000) < 1 / (1 + np.exp(-logits)))
    np.testing.assert_allclose(fitted.logit(features), logits, atol=0.3)
    # Penalised: finite where a feature separates, and constant features do no harm.
    apart = fit_logistic(np.column_stack([np.arange(8), np.ones(8)]), np.arange(8) > 3)
    assert (apart(np.array([[0, 1], [7, 1]])).round() == [0, 1]).all()
    with pytest.raises(InputError, match="0 of 3 did"):
        fit_logistic(np.zeros((3, 1)), np.zeros(3, bool))


def escaping(seed, rates, shape):
    """Q of rollouts that reach 5 at a random step with a puzzle's rate, and its rate in the rest.

    In hopeful puzzles the Q of failing rollouts is higher, by little.
    """
    rng = np.random.default_rng(seed)
    rate = rng.choice(rates, size=shape[0])
    q = rng.normal(-3 + 2 * (rate > 0)[:, None, None], 1, size=shape).clip(None, 1)
    step = rng.integers(shape[2], size=shape[:2])[..., None]
    escapes = rng.random(shape[:2]) < rate[:, None]
    q = np.where(escapes[..., None] & (np.arange(shape[2]) >= step), 5, q).astype(np.float32)
    return q, np.ones(shape, bool), rate


def test_a_shared_budget_goes_to_hopeful_puzzles():
    stop, shape = Stop(2.0), (300, 30, 4)
    chance = metrics.fit_chance(*escaping(0, [0, 0.1], shape)[:2], stop)
    q, finite, rate = escaping(1, [0, 0.1], shape)
    capped = metrics.replay(q, finite, dataclasses.replace(stop, max_rollout_steps=8 * 4))
    total = int(capped.rollout_steps.sum())
    shared = metrics.allocate(q, finite, stop, chance, total)
    assert total - 4 < shared.rollout_steps.sum() <= total
    # Of the hopeful puzzles nearly all stop; a cap at the same cost reaches about half.
    assert capped.stopped[rate > 0].mean() < 0.65
    assert shared.stopped[rate > 0].mean() > 0.9
    # With all the steps there is nothing to share.
    whole = metrics.allocate(q, finite, stop, chance, math.prod(shape))
    for got, want in zip(whole, metrics.replay(q, finite, stop), strict=True):
        assert (got == want).all()


def greedily(q, finite, stop, chance, total, answers):
    """Rollouts of each puzzle, by looking at all of them again after every rollout."""
    number, num_rollouts, depth = np.ones(len(q), int), *q.shape[1:]

    def steps(b, k):
        part = slice(b, b + 1), slice(k)
        return metrics.replay(q[part], finite[part], stop, answers=answers[part])

    def history(b):
        k = number[b]
        highest = []
        for r in range(k):
            ran = steps(b, r + 1).rollout_steps[0] - (steps(b, r).rollout_steps[0] if r else 0)
            known = q[b, r, :ran][finite[b, r, :ran]]
            highest.append(known.max(initial=-30))
        return np.array([math.log(k), max(highest), np.mean(highest, dtype=np.float64)])

    left = total - sum(int(steps(b, 1).rollout_steps[0]) for b in range(len(q)))
    while left >= depth:
        offers = [
            (-chance(history(b)), number[b], b)
            for b in range(len(q))
            if number[b] < num_rollouts and not steps(b, number[b]).stopped[0]
        ]
        if not offers:
            break
        b = min(offers)[2]
        before = steps(b, number[b]).rollout_steps[0]
        number[b] += 1
        left -= steps(b, number[b]).rollout_steps[0] - before
    return [tuple(f[0] for f in steps(b, number[b])) for b in range(len(q))]


@pytest.mark.parametrize("agree", [1, 2])
def test_a_shared_budget_is_spent_greedily(agree):
    rng = np.random.default_rng(agree)
    q = rng.choice(np.arange(-4, 4, dtype=np.float32), size=(5, 4, 3))
    finite, answers = rng.random(q.shape) < 0.9, rng.integers(2, size=q.shape)
    stop = Stop(3.0, agree=agree)
    chance = metrics.fit_chance(q, finite, stop, answers=answers)
    first = int(metrics.replay(q[:, :1], finite[:, :1], stop, answers=answers[:, :1])[4].sum())
    for total in range(first, q.size + 1, 9):
        shared = metrics.allocate(q, finite, stop, chance, total, answers=answers)
        assert list(zip(*shared, strict=True)) == greedily(q, finite, stop, chance, total, answers)
    with pytest.raises(InputError, match=f"total_steps must be a whole number >= {first}"):
        metrics.allocate(q, finite, stop, chance, first - 1, answers=answers)


# Learn then Test.


def judged(seed, num_puzzles, *, lied=0.1):
    """Two rollouts of two steps. A rule that stops below Q = 2 loses the share `lied` of puzzles.

    The last step of the first rollout is right and has Q 3; its first step has Q 1, or on some
    puzzles 2.5, and is wrong on the share `lied`, always with Q 1.
    """
    rng = np.random.default_rng(seed)
    early = np.where(rng.random(num_puzzles) < 0.4, 2.5, 1.0)
    wrong = rng.random(num_puzzles) < lied / 0.6
    correct = np.zeros((num_puzzles, 2, 2), bool)
    correct[:, 0, 1] = True
    correct[:, 0, 0] = (early > 2) | ~wrong
    q = np.full(correct.shape, -1.0, np.float32)
    q[:, 0, 0], q[:, 0, 1] = early, 3.0
    return Rollouts(correct, q, digest=correct.astype(np.uint64))


def test_the_loss_is_exceeded_no_more_often_than_allowed():
    chosen = [calibration.calibrate(judged(s, 80), loss=0.09, confidence=0.8) for s in range(30)]
    # Below Q = 1 rules lose 10 points, so the hypothesis of more than 9 is true, just.
    too_cheap = sum(rule.stop.q_logit <= 1 for rule in chosen)
    assert 1 <= too_cheap <= stats.binom.ppf(0.999, 30, 0.2)
    assert all(rule.stop.q_logit <= 2.5 for rule in chosen)  # those that lose nothing pass


def test_the_cheapest_rule_within_the_loss_is_chosen_and_scored():
    found = calibration.calibrate(judged(0, 400), loss=0.05)
    assert found == (Stop(2.5), 2)
    scored = calibration.score(judged(1, 400), found)
    assert scored.accuracy.mean == scored.reference.mean == scored.coverage.mean == 1
    assert scored.rollout_steps.mean == pytest.approx(1.6, abs=0.1)
    assert scored.share == scored.rollout_steps.mean / 4
    cheap = calibration.calibrate(judged(0, 400), loss=0.15)
    assert cheap == (Stop(1.0), 2)
    scored = calibration.score(judged(1, 400), cheap)
    assert scored.difference.mean == pytest.approx(-0.1, abs=0.03)


def test_what_a_rule_gains_makes_up_for_what_it_loses():
    rollouts = judged(0, 400, lied=0.04)
    late = rollouts.correct.copy()
    late[:200, 0, 1] = False  # read at the last step, half of the puzzles fail
    hurt = dataclasses.replace(rollouts, correct=late)
    assert calibration.calibrate(hurt, loss=0.01, reference="last") == (Stop(1.0), 2)
    # Against the best read, which is also fooled, there is the same gain.
    lost, gained = 20, 100
    right, reference = np.arange(400) >= lost, np.arange(400) < 400 - gained
    bound = calibration.loss_bound(right, reference, 0.05)
    upper = stats.binomtest(lost, 400).proportion_ci(1 - 2 * 0.045, "exact").high
    lower = stats.binomtest(gained, 400).proportion_ci(1 - 2 * 0.005, "exact").low
    assert bound == pytest.approx(upper - lower)


def test_a_cap_is_one_more_family():
    # Half of the puzzles are hopeless; a cap of one rollout gives them up and loses nothing.
    rollouts, hopeless = judged(0, 400, lied=0.3), np.arange(400)[:, None, None] < 200
    q = np.where(hopeless, np.float32(-1), rollouts.q_logit)
    half = Rollouts(rollouts.correct & ~hopeless, q)
    assert calibration.calibrate(half, loss=0.04) == (Stop(2.5), 2)
    found = calibration.calibrate(half, loss=0.04, caps=(None, 1, 2))
    assert found == (Stop(2.5, max_rollout_steps=2), 2)
    assert calibration.puzzles_needed(0.05, 0.95, 2) == math.ceil(math.log(0.0225, 0.95))


def test_rollouts_may_be_given_up_at_a_step():
    # Whatever is right is so at the first step, and Q never reaches 2 on half of the puzzles.
    rollouts, hopeless = judged(0, 400, lied=0), np.arange(400)[:, None, None] < 200
    q = np.where(hopeless, np.float32(-9), 3)
    half = Rollouts(rollouts.correct & ~hopeless, q + 0 * rollouts.q_logit)
    found = calibration.calibrate(half, loss=0.04, depths=(None, 1))
    assert found == (Stop(3.0), 1)
    assert calibration.score(half, found).share == (0.5 * 1 + 0.5 * 2) / 4
    with pytest.raises(InputError, match="depth must be a whole number in 1"):
        calibration.calibrate(half, loss=0.04, depths=(3,))


def test_nothing_passes_where_the_reference_is_better():
    rollouts = judged(0, 400)
    last = np.zeros(rollouts.correct.shape, bool)
    last[:, 1, 1] = True  # chosen by neither read
    q = np.where(last, 0, rollouts.q_logit).astype(np.float32)
    q[:, 0, 1] = -2
    worse = Rollouts(last, q)
    assert calibration.calibrate(worse, loss=0.05, reference="last") is None


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"loss": 0.02}, "at least 154 labelled puzzles for a loss of 0.02 with confidence 0.95"),
        ({"loss": 0.1, "confidence": 0.999}, "at least 67 labelled puzzles"),
        ({"loss": 2}, "loss must be a fraction in (0, 1); got 2"),
        ({"loss": 0.5, "confidence": 95}, "confidence must be a fraction in (0, 1); got 95"),
        ({"loss": 0.5, "caps": ()}, "caps and depths must hold at least one value"),
        ({"loss": 0.5, "reference": "first"}, "read must be one of last, best; got 'first'"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(changes, rule):
    with pytest.raises(InputError, match=re.escape(rule)):
        calibration.calibrate(judged(0, 40), **changes)


def test_a_calibration_needs_labels_and_steps():
    with pytest.raises(InputError, match="needs labelled puzzles; got none"):
        calibration.calibrate(judged(0, 40).part(slice(0)), loss=0.5)
    with pytest.raises(InputError, match="rollouts must have steps"):
        calibration.calibrate(judged(0, 40).at(1), loss=0.5)


def test_halves_are_disjoint_and_whole():
    first, second = calibration.halves(41, seed=1)
    assert (len(first), len(second)) == (21, 20)
    assert sorted([*first, *second]) == list(range(41))
    assert first.tolist() != list(range(21))


# The command.


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command on planted sweeps: status and printed text."""
    planted = {
        "one": [run(r.correct, 0.1, q_logit=r.q_logit, digest=r.digest) for r in [judged(0, 400)]],
        "other": [run(r.correct, 0.1, q_logit=r.q_logit, digest=r.digest) for r in [judged(1, 50)]],
    }
    planted["two"] = [*planted["one"], dataclasses.replace(planted["one"][0], sigma=0.3)]

    def read(folder):
        runs = tuple(planted[folder])
        config = sweep.SweepConfig(sigmas=tuple(each.sigma for each in runs))
        return sweep.Result(search=config, deterministic=runs[0], runs=runs, provenance={})

    monkeypatch.setattr(sweep, "read", read)
    calibrate = load_experiment("calibrate")

    def call(text):
        status = calibrate.main(text.split())
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return call


def test_the_command_reports_on_puzzles_that_the_rule_was_not_chosen_on(command):
    status, text = command("one --loss 0.1")
    assert status == 0
    assert "Stop(q_logit=2.5," in text and "chosen on 200 puzzles" in text
    assert "difference, points: +0.0 [" in text and "(n=200)" in text
    status, text = command("one --loss 0.1 --held-out other --reference last --caps 1")
    assert "chosen on 400 puzzles" in text and "(n=50)" in text


def test_the_command_says_what_is_wrong(command):
    assert command("two --loss 0.1") == (
        2,
        "error: sigma must be one of (0.1, 0.3) of two; got none; pass --sigma\n",
    )
    assert command("two --loss 0.1 --sigma 0.2")[0] == 2
    assert command("two --loss 0.1 --sigma 0.3")[0] == 0
    assert command("one --loss 0.001")[1].startswith("error: calibration needs at least 3100")
