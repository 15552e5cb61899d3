"""Trajectory modes: the rule on trajectories made by hand, the plane of a path, the exhibit."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ptrm_jax import make_puzzles
from ptrm_jax.analysis import modes
from ptrm_jax.analysis.study import Study, Trajectories
from ptrm_jax.sweep import Record


def steps(text: str) -> np.ndarray:
    """Right (#) and wrong (.) answers of trajectories, a word each: [B, D] bool."""
    return np.array([[mark == "#" for mark in word] for word in text.split()])


def answers(text: str) -> np.ndarray:
    """Answers named by letters, a word for each trajectory: [B, D] uint64."""
    return np.array([[ord(letter) for letter in word] for word in text.split()], np.uint64)


def test_the_rule_on_trajectories_made_by_hand() -> None:
    correct = steps("######## ..###### ...##### .##..### .......# ........ ..####.. #.......")
    expected = [1, 3, 4, 6, 8, 0, 0, 0]
    np.testing.assert_array_equal(modes.solved_at(correct), expected)
    assert modes.modes(correct, quick=3).tolist() == [
        *("quick", "quick", "delayed", "delayed", "delayed"),
        *("failed", "failed", "failed"),
    ]
    # The threshold itself is quick; one step later is not.
    assert modes.modes(correct, quick=4)[2] == "quick"
    assert modes.lost(correct).tolist() == [False] * 6 + [True] * 2


def test_solved_at_is_the_least_step_without_a_wrong_one_after() -> None:
    correct = np.random.default_rng(0).random((200, 6)) < 0.7
    for row, got in zip(correct, modes.solved_at(correct), strict=True):
        assert got == next((s for s in range(1, 7) if row[s - 1 :].all()), 0)


@pytest.mark.parametrize(
    ("trajectory", "ending", "period"),
    [
        ("abcdeeee", "settled", 1),
        ("abababab", "oscillates", 2),  # two answers in turn
        ("zzzzabab", "oscillates", 2),  # the window begins where the turns do
        ("xyabcabc", "oscillates", 0),  # cabc: back at c, but not for two periods
        ("abcdefgh", "wanders", 0),
        ("abcdeeff", "wanders", 0),  # staying is no return
        ("abcdeeef", "wanders", 0),
        ("zzzzabbb", "wanders", 0),  # not there for four steps yet
        ("zzzzabba", "oscillates", 0),
        ("aaaabcde", "wanders", 0),  # what was before the window does not count
        ("abcdabcd", "wanders", 0),
    ],
)
def test_endings_by_hand(trajectory: str, ending: str, period: int) -> None:
    got, p = modes.endings(answers(trajectory), last=4)
    assert (got[0], p[0]) == (ending, period)


def test_longer_periods_need_a_longer_window() -> None:
    got, period = modes.endings(answers("xxabcabc abcdabcd ababcabc aabbaabb xaxaxaxa"), last=8)
    assert got.tolist() == ["oscillates"] * 5
    assert period.tolist() == [0, 4, 0, 4, 2]
    got, period = modes.endings(answers("xxabcabc aaaaaaab"), last=6)
    assert got.tolist() == ["oscillates", "wanders"] and period.tolist() == [3, 0]
    # A window longer than the trajectory is the trajectory.
    got, period = modes.endings(answers("aaa aba abc"), last=8)
    assert got.tolist() == ["settled", "oscillates", "wanders"] and period.tolist() == [1, 0, 0]


def test_endings_by_what_the_words_say() -> None:
    """Against the definition, read off trajectory by trajectory."""
    answer = np.random.default_rng(1).integers(0, 3, (300, 7))
    for row, kind, period in zip(answer, *modes.endings(answer, last=6), strict=True):
        window = row[-6:].tolist()
        fits = [p for p in (1, 2, 3) if all(window[i] == window[i - p] for i in range(p, 6))]
        left = any(
            window[i] == window[k] and any(window[j] != window[i] for j in range(i, k))
            for i in range(6)
            for k in range(i, 6)
        )
        assert period == (fits[0] if fits else 0)
        assert kind == ("settled" if len(set(window)) == 1 else "oscillates" if left else "wanders")


def test_middle_is_the_lower_median_and_the_first_of_equal() -> None:
    values = np.array([9, 5, 1, 5, 7, 5])
    everyone = np.ones(6, bool)
    assert modes.middle(values, everyone) == 3  # sorted rows 2, 1, 3, 5, 4, 0: the third
    assert modes.middle(values, np.array([1, 0, 1, 0, 1, 0], bool)) == 4
    assert modes.middle(values, np.array([1, 0, 1, 0, 0, 0], bool)) == 2
    assert modes.middle(values, np.zeros(6, bool)) is None


def test_exhibit_counts_every_puzzle_once(tmp_path: Path) -> None:
    settings = modes.Settings(
        checkpoint="maze11", num_puzzles=12, depth=6, quick=2, last=3, devices=1
    )
    study = Study("modes", settings, tmp_path)
    (exhibit,) = modes.make(study)
    files = exhibit.write(tmp_path)
    assert files == [f"modes{suffix}" for suffix in (".png", ".npz", ".csv", ".json")]
    record = study.sweep(sigmas=(0.0,), rollouts=1, seeds=(0,)).deterministic.record
    correct = record.correct[:, 0]
    found = exhibit.findings
    np.testing.assert_allclose(sum(found[name].value for name in modes.MODES), 1)
    assert found["failed"].value == 1 - correct[:, -1].mean()
    assert found["quick"].value == correct[:, 1:].all(axis=1).mean()
    assert 0 < found["failed"].value < 1 and found["settled"].num_puzzles == (~correct[:, -1]).sum()
    with (tmp_path / "modes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row, right in zip(rows, correct, strict=True):
        assert (row["mode"] == "failed") == (not right[-1])
        assert (row["ending"] == "") == right[-1]
    shown = {row["mode"] for row in rows if row["shown"] == "True"}
    assert shown == {row["mode"] for row in rows}
    data = np.load(tmp_path / "modes.npz")
    assert {name for name in data if name.startswith("pca_")} == {f"pca_{m}" for m in shown}
    assert data["pca_failed"].shape == (6, 2)
    reading = " ".join(json.loads((tmp_path / "modes.json").read_text())["reading"])
    assert "Of 12 puzzles" in reading and f"Of the {(~correct[:, -1]).sum()} failures" in reading


def test_exhibit_where_everything_is_solved_at_once(tmp_path: Path) -> None:
    """No delayed success and no failure: nothing is said of them, and their panels say why."""
    right = np.ones((4, 1, 3), bool)
    record = Record(
        *(right, right.astype(np.float32), right.astype(np.float32), right, right),
        *(np.zeros((4, 1, 3), np.int32), np.zeros((4, 1, 3), np.uint64)),
    )
    y = np.arange(18, dtype=np.float32).reshape(1, 1, 3, 2, 3)
    answers = np.zeros((1, 1, 3, 2), np.int32)
    path = Trajectories(answers, record.q_logit[:1], right[:1], y, y, right[:1], right[:1] * 1.0)
    study = SimpleNamespace(
        settings=modes.Settings(depth=3),
        sweep=lambda **_: SimpleNamespace(
            deterministic=SimpleNamespace(record=record), provenance={}
        ),
        replay=lambda rows, **_: path,
        caption=lambda result, more: more,
        command="command",
        puzzles=SimpleNamespace(puzzles=make_puzzles(answers[:, 0, 0].repeat(4, axis=0))),
    )
    (exhibit,) = modes.make(study)  # type: ignore[arg-type]
    assert exhibit.findings["quick"].value == exhibit.findings["solved_at"].value == 1
    assert "settled" not in exhibit.findings and len(exhibit.reading) == 2
    said = [text.get_text() for ax in exhibit.figure.axes for text in ax.texts]
    assert said.count("no such puzzle") == 2 and said.count("no failure") == 1
    exhibit.write(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("quick", 0), ("last", 1), ("quick", 2.5)])
def test_settings_refuse(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number >= "):
        modes.Settings(**{name: value})
