"""Choices among all steps of all rollouts, on planted rollouts."""

import numpy as np
from planted import run, study

from ptrm_jax.analysis import choices
from ptrm_jax.analysis.choices import BASE, MODEL, Settings, candidates, choose, modelled
from ptrm_jax.analysis.study import OneSigma
from ptrm_jax.metrics import Rollouts

NAN = np.nan


def test_what_is_known_of_a_candidate_by_hand():
    # Three rollouts of five steps; answer 7 is right.
    digest = np.array([[[1, 7, 7, 7, 2], [7, 7, 7, 7, 7], [3, 4, 3, 4, 5]]], np.uint64)
    q = np.array([[[0, 4, 0, 0, -4], [0, 0, 0, 0, 4], [NAN] * 5]], np.float32)
    known = candidates(Rollouts(digest == 7, q, digest=digest))
    assert known.correct.tolist() == [[True, True, False]]
    assert known.highest.tolist() == [[4, 4, -30]]
    assert known.last.tolist() == [[-4, 4, -30]]
    assert known.late.tolist() == [[0, 1, -30]]
    assert known.mean.tolist() == [[0, 0.8, -30]]
    assert known.still.tolist() == [[-1 / 3, 0, -1]]
    assert known.agreement.tolist() == [[2 / 3, 2 / 3, 1 / 3]]
    likely = 1 / (1 + np.exp(-4))
    support = (2 * likely + 6 * 0.5) / 15
    np.testing.assert_allclose(known.support[0, :2], support)
    assert known.support[0, 2] < 1e-12


def test_ties_go_to_q_and_then_to_the_lower_rollout():
    correct = np.eye(3, dtype=bool)
    score = np.array([[1, 1, 0], [1, 2, 2], [0, 0, 3]])
    q = np.array([[5, 5, 9], [0, 4, 4], [9, 9, -9]])
    assert choose(correct, score, q).tolist() == [True, True, True]


def test_without_right_and_wrong_answers_there_is_no_model():
    right = np.ones((6, 2, 3), bool)
    known = candidates(Rollouts(right, right * 1.0, digest=right.astype(np.uint64)))
    assert modelled(known) is None


def planted(num_puzzles):
    """Puzzles on which the right answer has the lower Q, and is given by two of three rollouts."""
    rng = np.random.default_rng(0)
    correct = np.zeros((num_puzzles, 3, 4), bool)
    correct[:, 1:] = True
    correct[: num_puzzles // 4] = False
    q = rng.normal(size=correct.shape).astype(np.float32) / 9 + np.where(correct, 0, 2)
    digest = correct.astype(np.uint64)
    runs = [
        run(part, s, q_logit=q[:, : part.shape[1]], digest=digest[:, : part.shape[1]])
        for part, s in ((correct[:, :1], 0.0), (correct, 0.1))
    ]
    search = OneSigma(rollouts=3, depth=4)
    shown = study("choices", Settings(search=search), *runs)[0]
    shown.caption = lambda result: "planted"
    return shown


def test_what_beats_q_is_said(tmp_path):
    shown = choices.make(planted(40))
    by_name = {row["choice"]: row for row in shown.rows}
    assert by_name[BASE]["accuracy"] == 0
    assert by_name["agreement of rollouts"]["accuracy"] == 0.75
    assert by_name[MODEL]["accuracy"] == 0.75 == by_name[MODEL]["gain"]
    assert shown.findings["bound"].value == 0.75
    better = next(sentence for sentence in shown.reading if sentence.startswith("Better"))
    assert MODEL in better and "agreement of rollouts (+75.0 [" in better
    shown.write(tmp_path)
    assert (tmp_path / "choices.png").read_bytes().startswith(b"\x89PNG")
