"""Generates small puzzles of PPBench's six types to train and test on; rerun to continue.

    python experiments/pencil_data.py pencil6 --rounds 40
    python experiments/train.py pencil6

A round is a chunk of each type and size, from 4x4 to 6x6 cells. Each puzzle has one solution. It is
drawn without a clue that can be left out (nurikabe: each island keeps its number), and the table
counts the cells that unit propagation then does not find, as a measure of difficulty; in the sets
it gets up to `--extra-clues` more. Rounds that are there already are
kept, so the command can be stopped and rerun, and several processes may share the rounds
(`--first`, `--step`). Writes DIR/test.jsonl and DIR/train.
"""

if __name__ == "__main__":  # first, since the other imports take seconds
    from ptrm_jax import interrupts

    interrupts.catch()

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from ptrm_jax import console, markdown
from ptrm_jax.tasks.ppbench import TYPES, examples


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Generate puzzles of PPBench's types."""

    directory: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Where chunks and sets go."""
    rounds: int = 40
    """Rounds in all: 770 puzzles each, about 30 seconds on one core."""
    first: int = 0
    """First round of this process."""
    step: int = 1
    """Every which round this process makes."""
    num_test: int = 512
    """Puzzles of the test set, as many of each type."""
    extra_clues: int = examples.EXTRA_CLUES
    """A puzzle of 6x6 cells has 0 to this many clues that could be left out."""
    seed: int = 0
    """Seed of extra clues and of the states of training puzzles; a round is the seed of its
    puzzles."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status: 2 for bad input."""
    return console.run_command(
        lambda: _run(console.parse(Arguments, argv, prog="experiments/pencil_data.py"))
    )


def _run(arguments: Arguments) -> None:
    examples.check_settings(arguments.num_test, arguments.extra_clues)
    out = console.output()
    for number in range(arguments.first, arguments.rounds, arguments.step):
        for pid in TYPES:
            for size, count in examples.SIZES[pid].items():
                rate = examples.write_chunk(arguments.directory, pid, size, count, number)
                if rate is not None:
                    out.print(f"round {number}: {count} {pid} {size}x{size}, {rate:.1f} per second")
    found = examples.collect(
        arguments.directory,
        num_test=arguments.num_test,
        seed=arguments.seed,
        extra_clues=arguments.extra_clues,
    )
    titles = ["type", "size", "train", "test", "lookaheads", "guesses"]
    rows = [
        [pid, f"{size}x{size}", str(count), str(found.test[pid, size])]
        + [f"{by[pid, size]:.1f}" for by in (found.lookaheads, found.guesses)]
        for (pid, size), count in found.train.items()
    ]
    out.print(markdown.table(titles, rows, align_right=True))


if __name__ == "__main__":
    sys.exit(main())
