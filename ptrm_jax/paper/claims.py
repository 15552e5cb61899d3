"""Every number of the PTRM paper, what measures it, and what our own checkpoints can show of it.

Only the paper's checkpoints can reproduce a number; `Claim.measure` reads it from the finished
sweep of a named benchmark. What a number implies about PTRM (that width helps, that the Q head
tells right from wrong) is an effect that any checkpoint may show; `Effect` names the finding of a
figure (`ptrm_jax.analysis`) that tests it. No result of ours is stated here: results come from
files.

Source: PTRM, arXiv 2605.19943; Table 1 is PPBench's golden set by type, 2 the cost, 5 the width.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from etils import epath

from ptrm_jax.errors import InputError
from ptrm_jax.files import unsigned
from ptrm_jax.metrics import Interval
from ptrm_jax.reading import read_json
from ptrm_jax.sweep.scores import Scores

Expectation = Literal["positive", "negative", "small"]


class Effect(NamedTuple):
    """A finding that a claim implies for one of our checkpoints.

    Attributes:
      checkpoint: name of ours.
      exhibit: name of the exhibit.
      finding: its name there.
      expects: the sign of the finding, or "small" for none that matters.
    """

    checkpoint: str
    exhibit: str
    finding: str
    expects: Expectation


Measure = Callable[[Scores, epath.Path], Interval | float]
"""Reads a number from the scores of a benchmark's sweep, or from its folder."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A number of the paper.

    Attributes:
      where: table, figure or section.
      what: the quantity.
      paper: its value in the paper.
      unit: of the value.
      measure: reads it from the sweep of the section's benchmark; None if no sweep gives it.
      effects: findings on our checkpoints that test it.
    """

    where: str
    what: str
    paper: float | str
    unit: str = "%"
    measure: Measure | None = None
    effects: tuple[Effect, ...] = ()


@dataclasses.dataclass(frozen=True)
class Section:
    """Claims of one benchmark or one figure.

    Attributes:
      title: heading.
      benchmark: named sweep whose folder has their full-size values, or None.
      command: measures them on a full-size checkpoint; DIR and DATA are the user's.
      needs: the checkpoint and hardware that it requires.
      claims: in order.
    """

    title: str
    benchmark: str | None
    command: str
    needs: str
    claims: tuple[Claim, ...]


# --- Reading full-size sweeps --------------------------------------------------------------------


def _trm(depth: int) -> Measure:
    return lambda scores, folder: scores.trm_by_depth[depth - 1]


def _ptrm(choice: str, k: int, depth: int) -> Measure:
    def measure(scores: Scores, folder: epath.Path) -> Interval:
        line = scores.line(scores.config.sigmas[0], choice)
        if (line.rollouts, line.depth) != (k, depth):
            raise InputError(
                f"{folder} must be a sweep with rollouts {k} and depth {depth}, as the paper's; it "
                f"has {line.rollouts} and {line.depth}; run the benchmark with its own settings"
            )
        return line.accuracy

    return measure


def _arc(vote: str, k: int) -> Measure:
    def measure(scores: Scores, folder: epath.Path) -> Interval:
        with _saved(folder / "arc_scores.json") as saved:
            votes = saved if isinstance(saved, list) else saved["scores"]  # a list up to 0.4
            (found,) = (s for s in votes if s.get("vote", "").startswith(vote) and s["depth"] == 16)
            return Interval(**found["pass_at"][f"pass@{k}"])

    return measure


def _ppbench(method: str, kind: str | None = None) -> Measure:
    def measure(scores: Scores, folder: epath.Path) -> Interval:
        with _saved(folder / "ppbench.json") as saved:
            found = saved["methods"][method]
            return Interval(**(found["types"][kind] if kind else found["aggregate"]))

    return measure


def _ppbench_dollars(scores: Scores, folder: epath.Path) -> float:
    with _saved(folder / "ppbench.json") as saved:
        return float(saved["dollars_per_puzzle"])


@contextlib.contextmanager
def _saved(path: epath.Path) -> Iterator[Any]:
    """The JSON that a benchmark's report wrote, compared with its digest.

    Raises:
      InputError: it is damaged, or lacks what is looked up in this context.
    """
    try:
        saved = read_json(path)
        yield saved if isinstance(saved, list) else unsigned(saved)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not what a report of this version writes: {error}; rerun its sweep"
        ) from error


# --- The claims ----------------------------------------------------------------------------------


def _on(checkpoints: str, exhibit: str, finding: str, expects: Expectation) -> tuple[Effect, ...]:
    return tuple(Effect(name, exhibit, finding, expects) for name in checkpoints.split())


_BOTH = "sudoku9 maze11"
_ALL = f"pencil6 {_BOTH}"
_TYPES = ("sudoku", "lightup", "nurikabe", "heyawake", "tapa")


def _by_type() -> tuple[Claim, ...]:
    table = {
        ("TRM, D=16", "TRM, D=16"): (46.7, 87.5, 74.1, 85.7, 40.0),
        ("TRM, D=48", "TRM, D=48"): (57.8, 87.5, 74.1, 85.7, 40.0),
        ("best-Q@100, D=16", "sigma 0.2, D=16, best-Q@100"): (93.3, 100.0, 88.9, 85.7, 80.0),
        ("best-Q@100, D=48", "sigma 0.2, D=48, best-Q@100"): (97.8, 100.0, 88.9, 85.7, 80.0),
    }
    return tuple(
        Claim("Table 1", f"{label}, {kind}", value, measure=_ppbench(method, kind))
        for (label, method), values in table.items()
        for kind, value in zip(_TYPES, values, strict=True)
    )


def _split_sizes() -> tuple[Claim, ...]:
    sizes = {
        "sudoku": (7810, 97, 15),
        "lightup": (9504, 65, 8),
        "nurikabe": (15180, 55, 9),
        "heyawake": (42108, 70, 7),
        "tapa": (3663, 26, 10),
        "shakashaka": (20702, 62, 12),
    }
    return tuple(
        Claim("Data", f"{kind}: {split}", size, "puzzles")
        for kind, counts in sizes.items()
        for split, size in zip(("train", "validation", "golden"), counts, strict=True)
    )


SECTIONS: tuple[Section, ...] = (
    Section(
        "Sudoku-Extreme: K=100, D=64, sigma 0.3",
        "sudoku-extreme",
        "python experiments/ptrm_sweep.py sudoku-extreme --checkpoint DIR --data DATA",
        "checkpoint Sudoku-Extreme on an accelerator",
        (
            Claim("Section 5", "TRM, D=16", 87.28, measure=_trm(16)),
            Claim(
                "Section 5",
                "best-Q@100",
                98.75,
                measure=_ptrm("best_q", 100, 64),
                effects=_on("sudoku9", "width", "gain_equal_depth", "positive"),
            ),
            Claim(
                "Section 5",
                "pass@100",
                99.06,
                measure=_ptrm("pass", 100, 64),
                effects=_on("sudoku9", "width", "pass_gap", "small"),
            ),
            # Implied: the paper spends them on every puzzle.
            Claim(
                "Figure 4",
                "K x D needed: stopping when Q is sure loses",
                6400,
                "rollout-steps",
                effects=_on(_BOTH, "frontier", "stop_over_last", "negative"),
            ),
        ),
    ),
    Section(
        "Maze-Hard: K=100, D=16, sigma 1",
        "maze-hard",
        "python experiments/ptrm_sweep.py maze-hard --checkpoint DIR --data DATA",
        "checkpoint Maze-Hard on an accelerator",
        (
            Claim("Section 5", "TRM, D=16", 83.80, measure=_trm(16)),
            Claim(
                "Section 5",
                "best-Q@100",
                85.17,
                measure=_ptrm("best_q", 100, 16),
                effects=_on("maze11", "width", "gain_equal_depth", "positive"),
            ),
            Claim(
                "Section 5",
                "pass@100",
                95.63,
                measure=_ptrm("pass", 100, 16),
                effects=_on("maze11", "width", "pass_gap", "positive"),
            ),
            Claim(
                "Section 5",
                "mode@100, above best-Q",
                86.73,
                measure=_ptrm("mode", 100, 16),
                effects=_on("maze11", "width", "best_q_minus_mode", "negative"),
            ),
        ),
    ),
    Section(
        "ARC-AGI-2: K=25, D=16, sigma 0.2",
        "arc-agi-2",
        "python experiments/ptrm_sweep.py arc-agi-2 --checkpoint DIR --data DATA",
        "checkpoint ARC-AGI-2 on an accelerator",
        tuple(
            Claim("Section 5", f"{label}, pass@{k}", value, measure=_arc(vote, k))
            for label, vote, values in (
                ("TRM", "TRM, D=16", (7.36, 9.72, 14.31)),
                ("PTRM", "sigma 0.2, best-Q@25", (8.47, 9.72, 15.97)),
            )
            for k, value in zip((1, 2, 100), values, strict=True)
        ),
    ),
    Section(
        "PPBench, golden set, 49 puzzles: K=100, sigma 0.2, three seeds",
        "ppbench",
        "python experiments/ptrm_sweep.py ppbench --checkpoint DIR --data ppbench-golden",
        "checkpoint PPBench on an accelerator",
        (
            Claim("Table 1", "TRM, D=16", 62.6, measure=_ppbench("TRM, D=16")),
            Claim(
                "Table 1",
                "TRM, D=48",
                66.0,
                measure=_ppbench("TRM, D=48"),
                effects=_on(_ALL, "width", "trm_depth_gain", "positive"),
            ),
            Claim(
                "Table 1",
                "best-Q@100, D=16",
                89.8,
                measure=_ppbench("sigma 0.2, D=16, best-Q@100"),
                effects=_on(_ALL, "width", "gain_equal_depth", "positive"),
            ),
            Claim(
                "Table 1",
                "best-Q@100, D=48",
                91.2,
                measure=_ppbench("sigma 0.2, D=48, best-Q@100"),
                effects=_on(_ALL, "width", "depth_gain", "positive"),
            ),
            *_by_type(),
            Claim("Table 2", "cost of a puzzle, H100 at $2.50", 0.001, "dollars", _ppbench_dollars),
            Claim("Table 2", "rate of an H100", 2.50, "dollars per hour"),
        ),
    ),
    Section(
        "PPBench, validation set, 313 puzzles: width (Table 5)",
        "ppbench",
        "python experiments/ptrm_sweep.py ppbench --checkpoint DIR --data "
        "hf://datasets/OWNER/NAME/full_dataset.jsonl",
        "checkpoint PPBench on an accelerator",
        (
            Claim("Table 5", "TRM, D=16", 76.4, measure=_ppbench("TRM, D=16")),
            Claim("Section 5", "TRM, D=48", 78.3, measure=_ppbench("TRM, D=48")),
            Claim(
                "Table 5",
                "best-Q@100, D=16, from K=1",
                89.5,
                measure=_ppbench("sigma 0.2, D=16, best-Q@100"),
                effects=_on(_ALL, "width", "width_gain", "positive"),
            ),
            Claim(
                "Section 5",
                "best-Q@100, D=48",
                90.4,
                measure=_ppbench("sigma 0.2, D=48, best-Q@100"),
            ),
            Claim(
                "Section 5",
                "pass minus best-Q, less than",
                1.0,
                "points",
                effects=_on(_ALL, "width", "pass_gap", "small"),
            ),
            Claim(
                "Section 5",
                "what the mode gains, K=1 to 100",
                1.3,
                "points",
                effects=_on(_ALL, "width", "mode_gain", "positive"),
            ),
            Claim(
                "Section 5",
                "best-Q gains more than the mode (13.1 against 1.3)",
                11.8,
                "points",
                effects=_on(_ALL, "width", "best_q_minus_mode", "positive"),
            ),
        ),
    ),
    Section(
        "Noise (Figure 7): K=25 (mazes 100), D=16",
        None,
        "python experiments/figures.py sigma --checkpoint DIR --data DATA --rollouts 25",
        "checkpoints Sudoku-Extreme, Maze-Hard, ARC-AGI-2 on an accelerator",
        (
            Claim(
                "Figure 7",
                "Sudoku-Extreme: best-Q flat from sigma",
                0.1,
                "RMS",
                effects=_on("sudoku9", "sigma", "best_q_change", "small"),
            ),
            Claim(
                "Figure 7",
                "Maze-Hard: pass@100 rises to about, near sigma 1",
                96.0,
                effects=_on("maze11", "sigma", "pass_change", "positive"),
            ),
            Claim(
                "Figure 7",
                "Maze-Hard: best-Q@100 stays near",
                86.0,
                effects=_on("maze11", "sigma", "best_q_change", "small"),
            ),
            Claim("Figure 7", "ARC-AGI-2: best near sigma", 0.6, "RMS"),
        ),
    ),
    Section(
        "The Q head (Figure 3)",
        None,
        "python experiments/figures.py q_head --checkpoint DIR --data DATA --rollouts 100",
        "checkpoint PPBench on an accelerator",
        (
            Claim(
                "Figure 3",
                "Q of right rollouts at convergence, about",
                6,
                "logit",
                effects=_on(_BOTH, "q_head", "q_right", "positive"),
            ),
            Claim(
                "Figure 3",
                "Q of wrong rollouts at convergence, about",
                -6,
                "logit",
                effects=_on(_BOTH, "q_head", "q_wrong", "negative"),
            ),
            Claim(
                "Figure 3",
                "mean Q and mean cell accuracy rise together",
                "rise",
                "",
                effects=_on(_BOTH, "q_head", "q_rise", "positive")
                + _on(_BOTH, "q_head", "cells_rise", "positive"),
            ),
        ),
    ),
    Section(
        "Trajectories (Figures 2 and 5)",
        None,
        "python experiments/figures.py basins --checkpoint DIR --data DATA --rollouts 100",
        "checkpoint PPBench on an accelerator",
        (
            Claim(
                "Figure 2",
                "modes: quick success, delayed success, failure",
                3,
                "modes",
                effects=_on("maze11", "modes", "quick", "positive")
                + _on("maze11", "modes", "delayed", "positive")
                + _on("maze11", "modes", "failed", "positive"),
            ),
            Claim(
                "Figure 5",
                "rollouts of one failed puzzle, K=100, that escape",
                8,
                "rollouts",
                effects=_on("maze11", "basins", "escape_share", "positive"),
            ),
            Claim("Figure 5", "of the first 5", 0, "rollouts"),
            Claim("Figure 5", "of the first 25", 1, "rollouts"),
        ),
    ),
    Section(
        "Langevin dynamics (Appendix C, Figure 8)",
        None,
        "python experiments/figures.py langevin --checkpoint DIR --data DATA",
        "checkpoint PPBench on an accelerator",
        (
            Claim(
                "Appendix C",
                "gradient against control without it: the same",
                0,
                "points",
                effects=_on("sudoku9", "langevin", "gradient_gain", "small"),
            ),
        ),
    ),
    Section(
        "PPBench's data",
        None,
        "python experiments/ptrm_sweep.py ppbench --checkpoint DIR --data "
        "hf://datasets/OWNER/NAME/full_dataset.jsonl --dry-run",
        "the hub's data",
        (
            Claim("Data", "puzzles in all", 62231, "puzzles"),
            Claim("Data", "types in all", 94, "types"),
            Claim("Data", "golden puzzles in all", 300, "puzzles"),
            Claim("Data", "examples made of each training puzzle", 10, "examples"),
            *_split_sizes(),
        ),
    ),
)
