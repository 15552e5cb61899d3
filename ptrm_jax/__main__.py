"""`python -m ptrm_jax`: solve a puzzle, or watch it; look at a checkpoint; lay ARC-AGI out."""

import dataclasses
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.live import Live
from rich.text import Text

from ptrm_jax import mesh, metrics, tasks
from ptrm_jax.analysis import movie
from ptrm_jax.checkpoint import bundled, load, read_manifest
from ptrm_jax.config import ModelConfig, NoiseOn, Save
from ptrm_jax.errors import InputError
from ptrm_jax.model import TRM, Params
from ptrm_jax.puzzles import Puzzles, check_puzzles, make_puzzles
from ptrm_jax.solver import Solution
from ptrm_jax.sweep import INPUT_ERRORS
from ptrm_jax.tasks import Task, arc


@dataclasses.dataclass(frozen=True)
class Solve:
    """Solve puzzles and show what every rollout answered."""

    puzzle: Annotated[str, tyro.conf.Positional]
    """A Sudoku (cells row by row, a digit or . for a blank), a maze (cells out of "# SG"), or a
    puzz.link URL; or a file: .csv, .jsonl, or a puzzle on each line."""
    checkpoint: str | None = None
    """A bundled name or a directory; by default the bundled model of the puzzle's size."""
    rollouts: int = 8
    """K, noisy rollouts."""
    depth: int = 16
    """D, supervision steps of each."""
    sigma: float = 0.3
    """Noise scale, in units of the latent's root mean square."""
    noise_on: NoiseOn = "z"
    """State that gets the noise."""
    seed: int = 0
    """Of the noise."""

    def run(self) -> None:
        loaded = self.load()
        solution = self.solve(loaded, loaded.puzzles, num_rollouts=self.rollouts)
        for row, clues in enumerate(loaded.puzzles.inputs):
            print(_story(loaded.task, clues, jax.tree.map(lambda x, row=row: x[row], solution)))
        print(f"\n{self.settings(loaded)}")

    def load(self) -> "_Loaded":
        """Task, puzzles and model; everything but the numbers is checked."""
        task, inputs = _read_puzzles(self.puzzle)
        puzzles = make_puzzles(inputs)
        name = self.checkpoint or _bundled_for(task, inputs.shape[1])
        check_puzzles(ModelConfig.from_dict(read_manifest(name)["config"]), puzzles)
        return _Loaded(task, puzzles, name, *load(name))

    def solve(self, loaded: "_Loaded", puzzles: Puzzles, **more: Any) -> Solution:
        """These puzzles' rollouts."""
        return mesh.solve(
            loaded.model,
            loaded.params,
            jax.random.key(self.seed, impl="threefry2x32"),
            puzzles,
            depth=self.depth,
            sigma=self.sigma,
            noise_on=self.noise_on,
            **more,
        )

    def settings(self, loaded: "_Loaded") -> str:
        """What was run, in a line."""
        return (
            f"{loaded.name}: K={self.rollouts}, D={self.depth}, sigma={self.sigma:g} on "
            f"{self.noise_on}, seed {self.seed}"
        )


class _Loaded(NamedTuple):
    task: Task
    puzzles: Puzzles
    name: str
    model: TRM
    params: Params


@dataclasses.dataclass(frozen=True)
class Watch(Solve):
    """Solve puzzles and show the best-Q rollout step by step, with the confidence in each cell.

    Confidence is the softmax probability of the token that stands in a cell. On a terminal the
    board changes in place and has colours; elsewhere the boards follow each other.
    """

    delay: float = 0.4
    """Seconds between steps on a terminal; with 0 the boards follow each other there too."""

    def run(self) -> None:
        if not (math.isfinite(self.delay) and self.delay >= 0):
            raise InputError(
                f"delay must be finite and >= 0 seconds; got {self.delay:g}; pass 0 not to wait"
            )
        loaded = self.load()
        solution = self.solve(loaded, loaded.puzzles, num_rollouts=self.rollouts)
        console = Console(highlight=False)
        for row, rollout in enumerate(solution.rollout.tolist()):
            if rollout < 0:
                console.print("no rollout was finite: nothing to watch")
                continue
            boards = self._boards(loaded, row, rollout)
            if console.is_terminal and self.delay:
                with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
                    for board in boards:
                        live.update(board, refresh=True)
                        time.sleep(self.delay)
            else:
                for board in boards:
                    console.print(board, soft_wrap=True)
            console.print()
        marks = f"x clue not kept, ? confidence below {100 * movie.DOUBT:.0f} %"
        console.print(f"{marks}; {self.settings(loaded)}", soft_wrap=True)

    def _boards(self, loaded: _Loaded, row: int, rollout: int) -> Iterator[Text]:
        """A rollout's boards, each below a line on its step."""
        # Run once more: kept of all rollouts, the states would fill the memory.
        puzzles = loaded.puzzles.take([row])
        save = Save(answers=True, q_logits=True, latents=True)
        path = self.solve(loaded, puzzles, rollouts=np.array([rollout]), save=save).trajectory
        answers, q_logits, y = (x[0, 0] for x in (path.answers, path.q_logits, path.y))
        sure = movie.confidence(loaded.model, loaded.params, y)
        clues = loaded.puzzles.inputs[row]
        shown = movie.film(loaded.task, clues, answers, sure, q_logits)
        valid = loaded.task.satisfies_rules(answers, clues)
        for step, answer in enumerate(answers, start=1):
            line = f"rollout {rollout}, step {step} of {self.depth}, Q {q_logits[step - 1]:+.2f}, "
            line += "the rules hold" if valid[step - 1] else "the rules are BROKEN"
            if step > 1:
                line += f", cells changed: {(answer != answers[step - 2]).sum()}"
            yield Text(f"{line}\n") + movie.text(shown, step)


@dataclasses.dataclass(frozen=True)
class Info:
    """Say what a checkpoint is: architecture, digest, where it comes from."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """A bundled name or a directory."""

    def run(self) -> None:
        manifest = read_manifest(self.checkpoint)
        values = sum(int(np.prod(leaf["shape"])) for leaf in manifest["leaves"].values())
        print(f"{self.checkpoint}: {values:,} values, digest {manifest['digest']}")
        for title in ("config", "provenance"):
            print(f"{title}:")
            for name, value in manifest[title].items():
                print(f"  {name}: {value}")


@dataclasses.dataclass(frozen=True)
class ArcFolder:
    """Make a folder in upstream's layout of ARC-AGI's JSON files, to solve or to train on.

    The files are arc-agi_<subset>_challenges.json and, where outputs are known, ..._solutions.json.
    With the subsets, number and seed of upstream's builder the identifiers are upstream's.
    """

    source: Annotated[str, tyro.conf.Positional]
    """Folder of the JSON files."""
    output: Annotated[str, tyro.conf.Positional]
    """Folder to make."""
    subsets: tuple[str, ...] = ("training2", "evaluation2")
    """Subsets, in order."""
    test_subsets: tuple[str, ...] = ("evaluation2",)
    """Those whose test inputs are to be solved, and not trained on."""
    augmentations: int = 1000
    """Augmented copies of each task, beside the plain one."""
    seed: int = 42
    """Of the augmentations."""

    def run(self) -> None:
        found = arc.read_challenges(self.source, self.subsets)
        arc.write_folder(
            *(self.output, found, self.test_subsets),
            num_augmentations=self.augmentations,
            seed=self.seed,
        )
        rows = arc.read_set(self.output) if self.test_subsets else ()
        print(f"{len(found)} tasks, {len(rows)} rows to solve; {self.output}")


def _read_puzzles(text: str) -> tuple[Task, np.ndarray]:
    """Task and [B, S] int32 tokens of a puzzle, or of a file of them; ValueError if malformed."""
    # A puzzle of 81 characters could be a file's name, but is none; a longer one cannot be.
    path = Path(text)
    lines = [text]
    if len(text) < 256 and path.is_file():
        task = tasks.of_file(path)
        if task is not None:
            return task, task.read(path).inputs
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        if not lines:
            raise InputError(f"{path} must hold a puzzle on each line; it is empty")
    task = tasks.of_text(lines[0])
    boards = [task.encode(line) for line in lines]
    if len({len(board) for board in boards}) > 1:
        raise InputError(f"{path} must hold puzzles of one size; use a file for each")
    return task, np.stack(boards)


def _bundled_for(task: Task, num_cells: int) -> str:
    name = task.bundled(num_cells)
    if name not in bundled():
        raise InputError(
            f"no bundled model solves puzzles of {num_cells} cells of task {task.name!r}; bundled "
            f"are {', '.join(bundled())}; pass --checkpoint"
        )
    return name


def _story(task: Task, clues: np.ndarray, solution: Solution) -> str:
    """The puzzle, the distinct answers with their best Q and votes, the chosen one (fields [K])."""
    answers, q_logits = solution.rollout_answers, solution.rollout_q_logits
    finite, chosen = solution.rollout_finite, int(solution.rollout)
    valid = task.satisfies_rules(answers, clues)
    ids = metrics.answer_ids(answers[None])[0]
    lines = ["puzzle", task.draw(clues)]
    solutions = 1 if task.count_solutions is None else task.count_solutions(clues)
    if solutions != 1:
        lines.append(f"(it has {'no solution' if not solutions else 'several solutions'})")
    lines += ["", "rollout       Q  answer"]
    order = np.lexsort((np.arange(len(answers)), np.where(finite, -q_logits, np.inf)))
    for k in order:
        marks = ["chosen"] if k == chosen else []
        marks += ["rules hold" if valid[k] else "rules broken"]
        marks += [f"= rollout {ids[k]}"] if ids[k] != k else []
        marks += [] if finite[k] else ["not finite"]
        lines.append(f"{k:7d}  {q_logits[k]:+6.2f}  {task.decode(answers[k])}  {', '.join(marks)}")
    if chosen < 0:
        return "\n".join([*lines, "", "no rollout was finite: nothing to choose"])
    agree = int((ids == ids[chosen]).sum())
    probability = 1 / (1 + np.exp(-float(q_logits[chosen])))
    lines += [
        "",
        f"chosen: rollout {chosen}, Q {q_logits[chosen]:+.2f} (the model's own probability of "
        f"being right: {100 * probability:.1f} %),",
        f"given by {agree} of {len(answers)} rollouts; "
        + ("the rules hold" if valid[chosen] else "the rules are BROKEN"),
        task.draw(answers[chosen], clues=clues),
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 for bad input."""
    mesh.use_cpu_cores()
    command = tyro.cli(
        Annotated[Solve, tyro.conf.subcommand("solve")]  # type: ignore[arg-type]
        | Annotated[Watch, tyro.conf.subcommand("watch")]
        | Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[ArcFolder, tyro.conf.subcommand("arc-folder")],
        args=argv,
        prog="python -m ptrm_jax",
        description="Probabilistic Tiny Recursive Models in JAX.",
    )
    try:
        command.run()
    except INPUT_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
