"""TRM and a noisy rollout side by side: the board after every supervision step (not in the paper).

Shape letters: B puzzles, K rollouts, D supervision steps.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ptrm_jax import metrics, tasks
from ptrm_jax.analysis import boards, study
from ptrm_jax.analysis.boards import RIGHT, WRONG, Film
from ptrm_jax.analysis.exhibit import Exhibit, Finding, NothingToShow
from ptrm_jax.analysis.modes import solved_at
from ptrm_jax.analysis.study import OneSigma, Study
from ptrm_jax.data import Dataset
from ptrm_jax.errors import InputError
from ptrm_jax.metrics import Interval, Rollouts
from ptrm_jax.sweep import Result
from ptrm_jax.sweep.config import Inputs


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """One puzzle that TRM fails and a rollout solves, step by step, side by side."""

    inputs: Inputs = Inputs("maze11", num_puzzles=32)
    search: OneSigma = OneSigma(rollouts=16)
    type: str | None = None
    """Only puzzles of this type, where data have several, as PPBench's."""


class Choice(NamedTuple):
    """What to show.

    Attributes:
      row: of the puzzle.
      rollout: the rollout of that puzzle with the largest Q.
      escapes: [B] bool, puzzles to choose from that TRM fails and the best-Q rollout solves.
    """

    row: int
    rollout: int
    escapes: np.ndarray


def choose(deterministic: Rollouts, noisy: Rollouts, among: np.ndarray) -> Choice:
    """A puzzle on which the best-Q rollout ends with another answer than TRM.

    Of the puzzles that TRM fails after the last step and the best-Q rollout solves, the one that
    the rollout solves latest, since it shows the most. If there is none, of those whose last
    answers differ, the one where the numbers of right cells differ most.

    Args:
      deterministic: of TRM, fields [B, 1, D].
      noisy: fields [B, K, D].
      among: [B] bool, puzzles to choose from.

    Raises:
      NothingToShow: all answers of the best-Q rollouts are those of TRM.
    """
    depth = noisy.correct.shape[2]
    end, trm = noisy.at(depth), deterministic.at(depth).part(slice(None), 0)
    best = np.where(end.eligible, end.q_logit, -np.inf).argmax(axis=1)
    chosen = end.part(np.arange(len(best)), best)
    assert chosen.digest is not None and trm.digest is not None
    differ = (chosen.digest != trm.digest) & chosen.eligible & among
    escapes = chosen.correct & ~trm.correct & differ
    if not differ.any():
        raise NothingToShow(
            "the best-Q rollout of each of these puzzles ends with the answer of TRM without "
            "noise, so that there are no two trajectories to compare; pass more puzzles, a larger "
            "sigma or harder data"
        )
    if escapes.any():
        solved = solved_at(noisy.correct[np.arange(len(best)), best])
        row = np.where(escapes, solved, 0).argmax()
    else:
        assert chosen.cell_accuracy is not None and trm.cell_accuracy is not None
        apart = np.abs(chosen.cell_accuracy - trm.cell_accuracy)
        row = np.where(differ, apart, -1).argmax()
    return Choice(int(row), int(best[row]), escapes)


class Shown(NamedTuple):
    """One of the two rollouts.

    Attributes:
      title: of its boards.
      film: its boards.
      cells: fraction of its cells that are right after the last step.
      confidence: by "right" and "wrong", mean over all cells of the kind at all steps.
    """

    title: str
    film: Film
    cells: float
    confidence: dict[str, float]


class Movie(NamedTuple):
    """What the figure shows.

    Attributes:
      result: the sweep.
      choice: puzzle and rollout.
      escapes: fraction of puzzles that TRM fails and the best-Q rollout solves.
      shown: by "trm" and "rollout".
    """

    result: Result
    choice: Choice
    escapes: Interval
    shown: dict[str, Shown]

    @property
    def films(self) -> dict[str, Film]:
        """By title."""
        return {shown.title: shown.film for shown in self.shown.values()}

    @property
    def story(self) -> str:
        """Why this puzzle is shown."""
        if self.choice.escapes[self.choice.row]:
            return "which TRM fails and the best-Q rollout solves"
        return "where the two differ most; no best-Q rollout solves a puzzle that TRM fails"


def measure(study: Study[Settings]) -> Movie:
    """Sweeps, chooses a puzzle, and runs its two rollouts again, board by board."""
    search = study.settings.search
    among = _of_type(study.settings.type, study.prepared.puzzles)
    result = study.sweep()
    noisy = result.runs_of(search.sigma)[0].rollouts
    choice = choose(result.deterministic.rollouts, noisy, among)
    title = f"PTRM: noise of sigma {search.sigma:g}, rollout of highest Q"
    shown = {
        "trm": _show(study, result.task, "TRM: no noise", choice.row, 0, 0.0),
        "rollout": _show(study, result.task, title, choice.row, choice.rollout, search.sigma),
    }
    return Movie(result, choice, metrics.interval(choice.escapes[among]), shown)


def _of_type(kind: str | None, puzzles: Dataset) -> np.ndarray:
    """The puzzles of a type, all for None: [B] bool.

    Raises:
      InputError: there is none.
    """
    if kind is None:
        return np.ones(len(puzzles), bool)
    types = puzzles.strata.get("type", np.zeros(0, str))
    if kind not in types:
        known = ", ".join(sorted(set(types.tolist()))) or "none, since the data have no types"
        raise InputError(
            f"type must be one of those of {puzzles.name} ({known}); got {kind!r}; pass one of "
            "them, other data, or no type"
        )
    return types == kind


def _show(
    study: Study[Settings], task: str | None, title: str, row: int, rollout: int, sigma: float
) -> Shown:
    prepared = study.prepared
    path = study.replay([row], [rollout], sigma=sigma)
    film = boards.film(
        None if task is None else tasks.load(task),
        np.asarray(prepared.puzzles.puzzles.inputs[row]),
        path.answers[0, 0],
        boards.confidence(prepared.model, prepared.params, path.y[0, 0]),
        path.q_logit[0, 0],
        prepared.puzzles.labels[row],
        ignore_label=prepared.puzzles.ignore_label,
    )
    kinds = {"right": film.kind == RIGHT, "wrong": film.kind == WRONG}
    confidence = {
        kind: float(film.confidence[which].mean()) for kind, which in kinds.items() if which.any()
    }
    return Shown(title, film, float(path.cell_accuracy[0, 0, -1]), confidence)


def find(movie: Movie, search: OneSigma) -> dict[str, Finding]:
    """The numbers of the figure."""
    what = (
        f"TRM fails and best-Q@{search.rollouts} solves, D={search.depth}, sigma {search.sigma:g}"
    )
    findings = {"escapes": Finding.of(what, movie.escapes)}
    for name, shown in movie.shown.items():
        what, q = f"{shown.title}; puzzle {movie.choice.row}", shown.film.q_logit[-1]
        findings |= {
            f"q_{name}": Finding.single(f"{what}: Q after the last step", q, "number"),
            f"cells_{name}": Finding.single(
                f"{what}: cells right after the last step", shown.cells, "%"
            ),
        }
        for kind, mean in shown.confidence.items():
            findings[f"confidence_{kind}_{name}"] = Finding.single(
                f"{what}: mean confidence in {kind} cells, all steps", mean, "%"
            )
    return findings


def say(movie: Movie, findings: Mapping[str, Finding], search: OneSigma) -> list[str]:
    """The numbers in sentences."""

    def state(name: str) -> str:
        q = movie.shown[name].film.q_logit[-1]
        return f"{findings[f'cells_{name}'].text()} of the cells right and a Q of {q:+.2f}"

    return [
        f"Puzzles that TRM fails and the best-Q rollout of {search.rollouts} solves: "
        f"{findings['escapes'].text()}.",
        f"Shown is puzzle {movie.choice.row}, {movie.story}. After step {search.depth} TRM has "
        f"{state('trm')}; rollout {movie.choice.rollout} has {state('rollout')}.",
    ]


def make(study: Study[Settings]) -> Exhibit:
    """Two boards side by side, TRM and the best-Q rollout: GIF, page, and a few steps as PNG."""
    movie = measure(study)
    findings = find(movie, study.settings.search)
    title = "TRM and a noisy rollout, step by step"
    above = (
        "One puzzle, one network. PTRM adds noise to the latent z before every step,\n"
        f"runs {study.settings.search.rollouts} rollouts and keeps the one with the highest Q."
    )
    caption = study.caption(movie.result, f"puzzle {movie.choice.row}, {movie.story}")
    return study.exhibit(
        title,
        caption=caption,
        result=movie.result,
        reading=say(movie, findings, study.settings.search),
        findings=findings,
        figure=boards.still(movie.films, caption),
        data={
            f"{field}_{name}": np.asarray(getattr(shown.film, field))
            for name, shown in movie.shown.items()
            for field in ("symbols", "kind", "confidence", "q_logit")
        },
        files={
            ".gif": boards.gif(movie.films, above),
            ".html": boards.page(movie.films, title, caption).encode(),
        },
    )
