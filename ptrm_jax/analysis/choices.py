"""Other ways to choose among the kept steps of all rollouts, against the highest Q of any step.

The paper chooses by Q after the last step and leaves stronger choices to future work. All of these
are read off the kept steps of one sweep; with `--sweep DIR` nothing is solved. Sweeps keep no
latents, so how little a rollout moves (the residual of EqR, arXiv 2605.21488) is replaced by how
seldom its answer changes.

Shape letters: B puzzles, R seeds, K rollouts, D supervision steps.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit

from ptrm_jax import charts, metrics
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding, interval_columns
from ptrm_jax.analysis.study import Study, kept
from ptrm_jax.errors import InputError
from ptrm_jax.metrics import Interval, Rollouts
from ptrm_jax.metrics.calibration import halves
from ptrm_jax.metrics.logistic import fit_logistic
from ptrm_jax.sweep import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LATE = 4
"""Steps at the end over which Q is averaged and changes of the answer are counted."""

BASE = "highest Q of any step"
MODEL = "logistic model of all"

_NO_Q = -30.0  # below what a Q head says


@dataclasses.dataclass(frozen=True)
class Settings(study.KeptSettings):
    """What may be chosen by beside Q."""


class Candidates(NamedTuple):
    """What is known of each rollout's answer at its step of highest Q; [B, K] each.

    Attributes:
      correct: bool, whether that answer is right.
      highest: its Q.
      last: Q of the last step.
      late: mean Q of the last steps.
      mean: mean Q of all steps.
      still: minus the fraction of the last steps at which the answer changes.
      agreement: fraction of the rollouts with this answer.
      support: sum of sigmoid(Q) over all steps of all rollouts with this answer, over K * D.
    """

    correct: np.ndarray
    highest: np.ndarray
    last: np.ndarray
    late: np.ndarray
    mean: np.ndarray
    still: np.ndarray
    agreement: np.ndarray
    support: np.ndarray


def candidates(rollouts: Rollouts) -> Candidates:
    """What is known of each rollout's answer at its highest Q; `rollouts` are [B, K, D]."""
    num_rollouts, depth = rollouts.correct.shape[1:]
    best = rollouts.read("best").at(depth)
    assert rollouts.digest is not None and best.digest is not None
    q = np.where(rollouts.eligible, rollouts.q_logit, _NO_Q).astype(np.float64)
    digest, chance = rollouts.digest, expit(q)
    support = np.stack(
        [
            ((digest == best.digest[:, k, None, None]) * chance).sum(axis=(1, 2))
            for k in range(num_rollouts)
        ],
        axis=1,
    )
    changes = digest[:, :, -LATE:][:, :, 1:] != digest[:, :, -LATE:][:, :, :-1]
    return Candidates(
        best.correct & best.eligible,
        np.where(best.eligible, best.q_logit, _NO_Q).astype(np.float64),
        q[:, :, -1],
        q[:, :, -LATE:].mean(axis=2),
        q.mean(axis=2),
        -changes.sum(axis=2) / max(1, changes.shape[2]),
        (best.digest[:, :, None] == best.digest[:, None]).mean(axis=2),
        support / (num_rollouts * depth),
    )


def choose(correct: np.ndarray, score: np.ndarray, q: np.ndarray) -> np.ndarray:
    """[B] bool: whether the rollout of highest score is right; ties go to Q, then the lower id."""
    first = score == score.max(axis=1, keepdims=True)
    place = np.where(first, q, -np.inf).argmax(axis=1)
    return correct[np.arange(len(correct)), place]


def modelled(known: Candidates) -> np.ndarray | None:
    """[B, K] logits that an answer is right, by a logistic model of all that is known.

    Fitted on one half of the puzzles and used on the other, both ways. None where a half has no
    right or no wrong answer.
    """
    features = np.stack(known[1:], axis=2)
    logits = np.empty(known.correct.shape)
    parts = halves(len(logits))
    try:
        for fitted, used in (parts, parts[::-1]):
            rows = features[fitted].reshape(-1, features.shape[2])
            logits[used] = fit_logistic(rows, known.correct[fitted].ravel()).logit(features[used])
    except InputError:
        return None
    return logits


def choices(rollouts: Rollouts) -> dict[str, np.ndarray]:
    """[B] bool by the name of a choice: whether what it chooses is right."""
    known, end = candidates(rollouts), rollouts.at(rollouts.correct.shape[2])
    last = end.correct & end.eligible
    chosen = {
        "Q of the last step (PTRM)": choose(last, known.last, known.last),
        f"mean Q of the last {LATE} steps": choose(last, known.late, known.last),
        f"fewest changes in the last {LATE} steps": choose(last, known.still, known.last),
        BASE: choose(known.correct, known.highest, known.highest),
        "agreement of rollouts": choose(known.correct, known.agreement, known.highest),
        "agreement of steps, weighted by Q": choose(known.correct, known.support, known.highest),
    }
    model = modelled(known)
    if model is not None:
        chosen[MODEL] = choose(known.correct, model, known.highest)
    return chosen


class Measured(NamedTuple):
    """What each choice solves.

    Attributes:
      result: the sweep.
      accuracy: by choice, the fraction of puzzles solved.
      gain: by choice, that minus the fraction that `BASE` solves, paired by puzzle.
      bound: fraction of puzzles that any step of any rollout solves.
    """

    result: Result
    accuracy: Mapping[str, Interval]
    gain: Mapping[str, Interval]
    bound: Interval


def measure(study: Study[Settings]) -> Measured:
    """Reads or runs the sweep, and applies every choice to its kept steps."""
    solved = kept(study, equal_compute=True)  # needed by none, but the sweep of other figures
    runs = [choices(each) for each in solved.rollouts]
    names = [name for name in runs[0] if all(name in run for run in runs)]
    right = {name: np.stack([run[name] for run in runs]) for name in names}
    anywhere = [(each.correct & each.eligible).any(axis=(1, 2)) for each in solved.rollouts]
    return Measured(
        solved.result,
        {name: metrics.interval(values) for name, values in right.items()},
        {name: metrics.paired_difference(v, right[BASE]) for name, v in right.items()},
        metrics.interval(np.stack(anywhere)),
    )


def draw(measured: Measured, caption: str) -> "Figure":
    """Accuracy of the choices, and their differences from the highest Q of any step."""
    figure, axes = charts.new_figure(caption, columns=2, size=(4.4, 3.6), margin=2.0, sharey=True)
    names = list(measured.accuracy)
    gain = {**measured.gain, BASE: Interval(0.0, 0.0, 0.0, measured.bound.num_puzzles)}
    for style, (ax, values, label) in enumerate(
        zip(
            axes[0],
            (measured.accuracy, gain),
            ("puzzles solved exactly (%)", f"minus {BASE} (points)"),
            strict=True,
        )
    ):
        mean, low, high = np.array([values[name][:3] for name in names]).T
        spread = np.maximum((mean - low, high - mean), 0)
        ax.errorbar(mean, names, xerr=spread, fmt="o", color=charts.colour(style), capsize=2)
        ax.set(xlabel=label)
        charts.percent(ax, "x")
    axes[0, 0].axvline(measured.bound.mean, color=charts.GREY, linestyle=":")
    axes[0, 1].axvline(0, color=charts.GREY, linestyle=":")
    axes[0, 0].invert_yaxis()
    return figure


def find(measured: Measured) -> dict[str, Finding]:
    """Accuracy and gain of every choice."""
    found = {"bound": Finding.of("any step of any rollout is right", measured.bound)}
    for number, (name, accuracy) in enumerate(measured.accuracy.items()):
        found[f"choice_{number}"] = Finding.of(name, accuracy)
        if name != BASE:
            what = f"{name}, minus {BASE}"
            found[f"gain_{number}"] = Finding.of(what, measured.gain[name], "points")
    return found


def say(measured: Measured) -> list[str]:
    """The findings in sentences."""
    better = [name for name, gain in measured.gain.items() if gain.low > 0]
    worse = [name for name, gain in measured.gain.items() if gain.high < 0]
    rest = [name for name in measured.gain if name not in (*better, *worse, BASE)]
    said = {name: f"{name} ({gain.brief('+')})" for name, gain in measured.gain.items()}
    sentences = [
        f"The {BASE} chooses a right answer for {measured.accuracy[BASE]} of the puzzles; "
        f"{measured.bound} have one at some step of some rollout.",
    ]
    for names, verdict in (
        (better, "Better, in points"),
        (rest, "Not told apart"),
        (worse, "Worse"),
    ):
        if names:
            sentences.append(f"{verdict}: {'; '.join(said[name] for name in names)}.")
    if MODEL in measured.accuracy:
        sentences.append("The model is fitted on one half of the puzzles and used on the other.")
    return sentences


def make(study: Study[Settings]) -> Exhibit:
    """The figure of choices."""
    measured = measure(study)
    caption = study.caption(measured.result)
    return study.exhibit(
        "Choices among all steps of all rollouts",
        caption=caption,
        result=measured.result,
        reading=say(measured),
        findings=find(measured),
        figure=draw(measured, caption),
        rows=[
            {"choice": name, "num_puzzles": value.num_puzzles}
            | interval_columns(value)
            | dict(zip(("gain", "gain_low", "gain_high"), measured.gain[name], strict=False))
            for name, value in measured.accuracy.items()
        ],
    )
