"""`python -m ptrm_jax`: solve puzzles, watch a rollout, describe a checkpoint, convert ARC-AGI."""

if __name__ == "__main__":  # first, since the other imports take seconds
    from ptrm_jax import interrupts

    interrupts.catch()

import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro
import yaml
from rich.live import Live
from rich.text import Text
from tyro.conf import Positional, arg, subcommand

from ptrm_jax import console, mesh, puzzle_text
from ptrm_jax.analysis.boards import DOUBT
from ptrm_jax.checkpoint import bundled, load, num_parameters, read_manifest
from ptrm_jax.config import ModelConfig, NoiseOn, Save, Stop
from ptrm_jax.errors import InputError
from ptrm_jax.model import TRM, Params
from ptrm_jax.puzzles import Puzzles, check_puzzles, make_puzzles
from ptrm_jax.solver import AnytimeSolution, Solution
from ptrm_jax.tasks import Task, arc


class _Problem(NamedTuple):
    """Puzzles, and the model that solves them."""

    task: Task
    puzzles: Puzzles
    checkpoint: str
    model: TRM
    params: Params


@dataclasses.dataclass(frozen=True)
class Solve:
    """Solve puzzles: rollouts one after the other until the model is sure of an answer."""

    puzzle: Annotated[Positional[str], arg(metavar="PUZZLE")]
    """A Sudoku (row by row, . for a blank), a maze (row by row, "S #G"), or a puzz.link URL;
    or a file: .csv, .jsonl, or text with a puzzle on each line or over several."""
    checkpoint: Annotated[str | None, arg(metavar="NAME|DIR", help_behavior_hint="")] = None
    """A bundled checkpoint's name or a directory; default: the bundled one for this size."""
    rollouts: int = 8
    """K, noisy rollouts of a puzzle; with --stop-q the most."""
    depth: int = 16
    """D, supervision steps of each rollout."""
    stop_q: Annotated[float | None, arg(metavar="FLOAT|None")] = 5.0
    """Stop as soon as Q, a logit, reaches this; None runs all rollouts and prints every answer."""
    sigma: float = 0.3
    """Noise scale, in units of the latent's root mean square."""
    noise_on: NoiseOn = "z"
    """State that the noise is added to."""
    seed: int = 0
    """Seed of the noise."""

    def run(self) -> None:
        problem = self.load()
        solution = self.choose(problem)
        out = console.output()
        for row, puzzle in enumerate(problem.puzzles.inputs):
            one = jax.tree.map(lambda x, row=row: x[row], solution)
            out.print(puzzle_text.solution_text(problem.task, np.asarray(puzzle), one))
        out.print(f"\n{self._settings(problem)}")

    def choose(self, problem: _Problem) -> Solution[np.ndarray] | AnytimeSolution[np.ndarray]:
        if self.stop_q is None:
            return self.solve(problem, problem.puzzles, num_rollouts=self.rollouts)
        return mesh.solve_anytime(
            problem.model,
            problem.params,
            jax.random.key(self.seed, impl="threefry2x32"),
            problem.puzzles,
            stop=Stop(self.stop_q),
            max_rollouts=self.rollouts,
            depth=self.depth,
            sigma=self.sigma,
            noise_on=self.noise_on,
        )

    def load(self) -> _Problem:
        known = {} if self.checkpoint is None else read_manifest(self.checkpoint)["config"]
        task, inputs = puzzle_text.read(
            self.puzzle, num_cells=known.get("seq_len"), vocab_size=known.get("vocab_size")
        )
        name = self.checkpoint or _bundled_for(task, inputs.shape[1])
        config = ModelConfig.from_dict(read_manifest(name)["config"])
        if task.resize is not None:
            inputs = np.stack([task.resize(board, config.seq_len) for board in inputs])
        puzzles = make_puzzles(inputs)
        check_puzzles(config, puzzles)
        return _Problem(task, puzzles, name, *load(name))

    def solve(self, problem: _Problem, puzzles: Puzzles, **settings: Any) -> Solution[np.ndarray]:
        return mesh.solve(
            problem.model,
            problem.params,
            jax.random.key(self.seed, impl="threefry2x32"),
            puzzles,
            depth=self.depth,
            sigma=self.sigma,
            noise_on=self.noise_on,
            **settings,
        )

    def _settings(self, problem: _Problem) -> str:
        stop = "" if self.stop_q is None else f", stops at Q >= {self.stop_q:g}"
        return (
            f"{problem.checkpoint}: K={self.rollouts}, D={self.depth}, sigma={self.sigma:g} on "
            f"{self.noise_on}, seed {self.seed}{stop}"
        )


@dataclasses.dataclass(frozen=True)
class Watch(Solve):
    """Solve puzzles and show the rollout that answers step by step.

    The confidence in a cell is the softmax probability of its token.
    """

    delay: float = 0.4
    """Seconds between steps on a terminal, where the board is redrawn; 0 prints every board."""

    def run(self) -> None:
        if not (math.isfinite(self.delay) and self.delay >= 0):
            raise InputError(
                f"delay must be finite and >= 0 seconds; got {self.delay:g}; pass 0 not to wait"
            )
        problem = self.load()
        solution = self.choose(problem)
        out = console.output()
        for row, rollout in enumerate(solution.rollout.tolist()):
            if rollout < 0:
                out.print("no rollout was finite: nothing to watch")
                continue
            boards = self._boards(problem, row, rollout)
            if out.is_terminal and self.delay:
                with Live(console=out, auto_refresh=False, vertical_overflow="visible") as live:
                    for board in boards:
                        live.update(board, refresh=True)
                        time.sleep(self.delay)
            else:
                for board in boards:
                    out.print(board)
            out.print()
        marks = f"x clue not kept, ? confidence below {100 * DOUBT:.0f} %"
        out.print(f"{marks}; {self._settings(problem)}")

    def _boards(self, problem: _Problem, row: int, rollout: int) -> Iterator[Text]:
        # Solved again: the states of every step of all rollouts may not fit into memory.
        puzzles = problem.puzzles.take(np.array([row]))
        save = Save(answers=True, q_logits=True, latents=True)
        again = self.solve(problem, puzzles, rollouts=np.array([rollout]), save=save)
        path = jax.tree.map(lambda x: x[0, 0], again.trajectory)
        puzzle = np.asarray(puzzles.inputs[0])
        return puzzle_text.step_texts(
            problem.task, problem.model, problem.params, puzzle, rollout, path
        )


@dataclasses.dataclass(frozen=True)
class Info:
    """Describe a checkpoint: architecture, digest, provenance."""

    checkpoint: Annotated[Positional[str], arg(metavar="NAME|DIR")]
    """A bundled checkpoint's name or a directory."""
    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print JSON."""

    def run(self) -> None:
        manifest = read_manifest(self.checkpoint)
        parameters, digest = num_parameters(manifest), manifest["digest"]
        sections = {"config": manifest["config"], "provenance": manifest["provenance"]}
        out = console.output()
        if self.json:
            facts = {"checkpoint": self.checkpoint, "parameters": parameters, "digest": digest}
            out.print(json.dumps(facts | sections, indent=2))
        else:
            out.print(f"{self.checkpoint}: {parameters:,} parameters, digest {digest}")
            out.print(yaml.safe_dump(sections, sort_keys=False, width=math.inf).rstrip())


@dataclasses.dataclass(frozen=True)
class ArcFolder:
    """Convert ARC-AGI's JSON files to a folder in upstream's layout, to solve or train on.

    Reads arc-agi_<subset>_challenges.json and, for known outputs, ..._solutions.json.

    Upstream's subsets, augmentations and seed, the defaults, give upstream's identifiers.
    """

    source: Annotated[Positional[str], arg(metavar="SOURCE")]
    """Folder of the JSON files."""
    output: Annotated[Positional[str], arg(metavar="OUTPUT")]
    """Folder to create."""
    subsets: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ("training2", "evaluation2")
    """Subsets, in order."""
    test_subsets: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ("evaluation2",)
    """Subsets whose test inputs are to be solved, not trained on."""
    augmentations: int = 1000
    """Augmented copies of each task, in addition to the original."""
    seed: int = 42
    """Seed of the augmentations."""

    def run(self) -> None:
        found = arc.read_challenges(self.source, self.subsets)
        arc.write_folder(
            self.output,
            found,
            self.test_subsets,
            num_augmentations=self.augmentations,
            seed=self.seed,
        )
        rows = arc.read_set(self.output) if self.test_subsets else ()
        console.output().print(f"{len(found)} tasks, {len(rows)} rows to solve; {self.output}")


def _bundled_for(task: Task, num_cells: int) -> str:
    name = task.bundled(num_cells)
    if name not in bundled():
        raise InputError(
            f"no bundled model solves puzzles of {num_cells} cells of task {task.name!r}; bundled "
            f"are {', '.join(bundled())}; pass --checkpoint"
        )
    return name


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 for bad input."""
    kinds: Any = (
        Annotated[Solve, subcommand("solve")]
        | Annotated[Watch, subcommand("watch")]
        | Annotated[Info, subcommand("info")]
        | Annotated[ArcFolder, subcommand("arc-folder")]
    )

    def command() -> None:
        mesh.use_cpu_cores()
        console.parse(
            kinds,
            argv,
            prog="python -m ptrm_jax",
            description="Probabilistic Tiny Recursive Models in JAX.",
            config=(tyro.conf.FlagCreatePairsOff,),
        ).run()

    return console.run_command(command)


if __name__ == "__main__":
    sys.exit(main())
