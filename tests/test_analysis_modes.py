"""Trajectory modes: the rule on trajectories made by hand, and the figure of planted ones."""

import csv
import json
from pathlib import Path

import numpy as np
import planted
import pytest

from ptrm_jax.analysis import modes
from ptrm_jax.analysis.study import OneSigma


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
    ("trajectory", "last", "ending", "period"),
    [
        ("abcdeeee", 4, "settled", 1),
        ("abababab", 4, "oscillates", 2),  # two answers in turn
        ("zzzzabab", 4, "oscillates", 2),  # the window begins where the turns do
        ("xyabcabc", 4, "oscillates", 0),  # cabc: back at c, but not for two periods
        ("abcdefgh", 4, "wanders", 0),
        ("abcdeeff", 4, "wanders", 0),  # staying is no return
        ("abcdeeef", 4, "wanders", 0),
        ("zzzzabbb", 4, "wanders", 0),  # there for three steps only
        ("zzzzabba", 4, "oscillates", 0),
        ("aaaabcde", 4, "wanders", 0),  # what was before the window does not count
        ("abcdabcd", 4, "wanders", 0),
        ("abcdabcd", 8, "oscillates", 4),  # longer periods need a longer window
        ("xxabcabc", 8, "oscillates", 0),
        ("xxabcabc", 6, "oscillates", 3),
        ("ababcabc", 8, "oscillates", 0),
        ("aabbaabb", 8, "oscillates", 4),
        ("xaxaxaxa", 8, "oscillates", 2),
        ("aaaaaaab", 6, "wanders", 0),
        ("aaa", 8, "settled", 1),  # a window longer than the trajectory is the trajectory
        ("aba", 8, "oscillates", 0),
        ("abc", 8, "wanders", 0),
    ],
)
def test_endings_by_hand(trajectory: str, last: int, ending: str, period: int) -> None:
    got, p = modes.endings(answers(trajectory), last=last)
    assert (got[0], p[0]) == (ending, period)


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


def study(correct: str, answer: str, **settings: int) -> tuple:
    right, digest = steps(correct)[:, None], answers(answer)[:, None]
    cells = np.where(right, 1.0, np.linspace(0.5, 0.9, right.size).reshape(right.shape))
    run = planted.run(right, digest=digest, cell_accuracy=cells)
    search = OneSigma(depth=right.shape[2])
    return planted.study("modes", modes.Settings(search=search, **settings), run)


def test_the_figure_counts_every_puzzle_once(tmp_path: Path) -> None:
    correct = "###### .##### ..#### ....## ...#.. ...... ......"
    shown, asked = study(
        correct, "aaaaaa xaaaaa xyaaaa wxyzaa wxyazz abcdef xyzaba", quick=2, last=3
    )
    exhibit = modes.make(shown)
    # Medians: s* of 1 and 2; of 3 and 5; cell accuracies in order.
    assert asked == [((0, 2, 5), (0,), 0.0)]
    files = exhibit.write(tmp_path)
    assert files == [f"modes{suffix}" for suffix in (".png", ".npz", ".csv", ".json")]
    expected = {"quick": 2 / 7, "delayed": 2 / 7, "failed": 3 / 7, "lost": 1 / 7, "periodic": 0}
    expected |= {"solved_at": 11 / 4, "settled": 0, "wanders": 2 / 3, "oscillates": 1 / 3}
    values = {name: finding.value for name, finding in exhibit.findings.items()}
    assert values == pytest.approx(expected)
    assert exhibit.findings["settled"].num_puzzles == 3
    with (tmp_path / "modes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["mode"] for row in rows] == ["quick"] * 2 + ["delayed"] * 2 + ["failed"] * 3
    assert [row["ending"] for row in rows] == [""] * 4 + ["wanders", "wanders", "oscillates"]
    assert [row["period"] for row in rows] == [""] * 4 + ["0"] * 3
    assert [row["row"] for row in rows if row["shown"] == "True"] == ["0", "2", "5"]
    data = np.load(tmp_path / "modes.npz")
    pca = {"pca_quick", "pca_delayed", "pca_failed"}
    assert {name for name in data if name.startswith("pca_")} == pca
    assert all(data[name].shape == (6, 2) for name in pca)
    reading = " ".join(json.loads((tmp_path / "modes.json").read_text())["reading"])
    assert "Of 7 puzzles" in reading and "Of the 3 failures" in reading


def test_the_figure_if_everything_is_solved_at_once() -> None:
    """No delayed success and no failure: no sentences about them, and their panels say so."""
    shown, _ = study("### ### ### ###", "aaa aaa aaa aaa")
    exhibit = modes.make(shown)
    assert exhibit.findings["quick"].value == exhibit.findings["solved_at"].value == 1
    assert "settled" not in exhibit.findings and len(exhibit.reading) == 2
    said = [text.get_text() for ax in exhibit.figure.axes for text in ax.texts]
    assert said.count("no such puzzle") == 2 and said.count("no failure") == 1


@pytest.mark.parametrize(("name", "value"), [("quick", 0), ("last", 1), ("quick", 2.5)])
def test_settings_refuse(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number >= "):
        modes.Settings(**{name: value})
