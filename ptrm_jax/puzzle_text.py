"""Puzzles and their solutions as text: read from a line or a file, printed for the terminal.

Shape letters: B puzzles, K rollouts, D supervision steps, S tokens (cells), L positions, C
channels.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.text import Text

from ptrm_jax import metrics, tasks
from ptrm_jax.analysis import boards
from ptrm_jax.checkpoint import bundled
from ptrm_jax.errors import InputError
from ptrm_jax.model import TRM, Params
from ptrm_jax.reading import read_text
from ptrm_jax.solver import AnytimeSolution, Solution, Trajectory
from ptrm_jax.tasks import Task, ppbench
from ptrm_jax.tasks.sudoku.boards import BOARDS
from ptrm_jax.tasks.text import Lines, encode_all

_LONGEST_FILE_NAME = 255
_LONGEST_LINE = 10_000
_FILE_NAME = re.compile(r"[^\n?]*(?:[/\\][^\n?]*|\.[A-Za-z]\w{0,6})")


def read(
    text: str, *, num_cells: int | None = None, vocab_size: int | None = None
) -> tuple[Task, np.ndarray]:
    """Reads a puzzle, or a file of puzzles.

    Args:
      text: a puzzle; or the path of a file that a task reads (.csv, .jsonl), or of a text of
        puzzles, each on one line or on several.
      num_cells: S of the model that is to solve them, if it is known. A puzz.link Sudoku is read
        as a Sudoku, unless the model reads boards of PPBench or no bundled one reads Sudokus of
        this size.
      vocab_size: V of that model, which tells the two apart where they have the same S.

    Returns:
      The task, and tokens [B, S] int32.

    Raises:
      InputError: no such file, malformed puzzles, an empty file, or puzzles of several sizes. For a
        file the message begins ``path:line:``.
    """
    path, name, lines = Path(text), "", text.splitlines()
    if len(text) <= _LONGEST_FILE_NAME and path.exists():
        if not path.is_file():
            raise InputError(f"{path} must be a file of puzzles; it is a folder")
        task = tasks.of_file(path)
        if task is not None:
            return task, task.read(path).inputs
        name, lines = text, read_text(path).splitlines()
        if not any(line.strip() for line in lines):
            raise InputError(f"{path} must hold puzzles, such as one per line; it is empty")
    if (longest := max(map(len, lines), default=0)) > _LONGEST_LINE:
        raise InputError(
            f"{name or 'a puzzle'} must have lines of at most {_LONGEST_LINE:,} characters; one "
            f"has {longest:,}; write one puzzle per line"
        )
    task = tasks.of_text("\n".join(lines).strip("\n"))
    if not name and task.name == "sudoku" and _FILE_NAME.fullmatch(text):
        raise InputError(f"no such file: {text}")
    puzzles = task.lines(lines)
    if not puzzles:
        raise InputError(f"{text} must hold puzzles; it has only comments")
    if boards := _linked_sudokus(task, puzzles, num_cells, vocab_size):
        return tasks.load("sudoku"), np.stack(boards)
    return task, np.stack(encode_all(puzzles, task.encode, name, task.resize))


def _linked_sudokus(
    task: Task, puzzles: Lines, num_cells: int | None, vocab_size: int | None
) -> list[np.ndarray]:
    """puzz.link Sudokus as boards of the task sudoku; none if these are others."""
    if task.name != "ppbench":
        return []
    sudoku = tasks.load("sudoku")
    boards = []
    for _, text in puzzles:
        try:
            puzzle = ppbench.from_url(text)
        except InputError:
            return []  # `encode` says what is wrong
        size = puzzle.height * puzzle.width
        if puzzle.pid != "sudoku" or size not in BOARDS or num_cells not in (None, size):
            return []
        if vocab_size not in (None, sudoku.vocab_size(size)):
            return []
        if num_cells is None and sudoku.bundled(size) not in bundled():  # such as 4x4
            return []
        boards.append(sudoku.encode("".join(itertools.chain(*puzzle.problem))))
    return boards if len({len(board) for board in boards}) == 1 else []


def solution_text(
    task: Task, puzzle: np.ndarray, solution: Solution[np.ndarray] | AnytimeSolution[np.ndarray]
) -> str:
    """The puzzle, every rollout's answer in the order of Q if all ran, and the chosen answer.

    Args:
      task: the kind of puzzle.
      puzzle: [S] tokens.
      solution: of this puzzle, without the axis B: `rollout_answers` [K, S], `rollout` [], ...
    """
    lines = ["puzzle", task.draw(puzzle)]
    num_solutions = 1 if task.count_solutions is None else task.count_solutions(puzzle)
    if num_solutions != 1:
        lines.append(f"(it has {'several solutions' if num_solutions else 'no solution'})")
    if isinstance(solution, AnytimeSolution):
        lines += ["", *_stopped(task, puzzle, solution)]
    else:
        lines += ["", *_all_rollouts(task, puzzle, solution)]
    return "\n".join(lines)


def _stopped(task: Task, puzzle: np.ndarray, solution: AnytimeSolution[np.ndarray]) -> list[str]:
    q_logit, steps = float(solution.q_logit), int(solution.rollout_steps)
    if solution.rollout < 0:
        return [f"no rollout was finite in {steps} rollout-steps: nothing to choose"]
    when = "sure after" if solution.stopped else "never sure; the best of"
    return [
        f"{when} {steps} rollout-steps: rollout {solution.rollout}, step {solution.step}, "
        f"{_q_in_words(q_logit)};",
        _verdict(bool(task.satisfies_rules(solution.answer, puzzle))),
        task.draw(solution.answer, clues=puzzle),
    ]


def _q_in_words(q_logit: float) -> str:
    probability = 100 / (1 + np.exp(-q_logit))
    return f"Q {q_logit:+.2f} (the model's own probability of being right: {probability:.1f} %)"


def _all_rollouts(task: Task, puzzle: np.ndarray, solution: Solution[np.ndarray]) -> list[str]:
    answers, q_logits = solution.rollout_answers, solution.rollout_q_logits
    finite, chosen = solution.rollout_finite, int(solution.rollout)
    valid = task.satisfies_rules(answers, puzzle)
    ids = metrics.answer_ids(answers[None])[0]
    lines = ["rollout       Q  answer"]
    for k in np.argsort(np.where(finite, -q_logits, np.inf), stable=True):
        marks = ["chosen"] if k == chosen else []
        marks += ["rules hold" if valid[k] else "rules broken"]
        marks += [f"= rollout {ids[k]}"] if ids[k] != k else []
        marks += [] if finite[k] else ["not finite"]
        lines.append(f"{k:7d}  {q_logits[k]:+6.2f}  {task.decode(answers[k])}  {', '.join(marks)}")
    if chosen < 0:
        return [*lines, "", "no rollout was finite: nothing to choose"]
    agree = int((ids == ids[chosen]).sum())
    return [
        *lines,
        "",
        f"chosen: rollout {chosen}, {_q_in_words(float(q_logits[chosen]))},",
        f"given by {agree} of {len(answers)} rollouts; {_verdict(valid[chosen])}",
        task.draw(answers[chosen], clues=puzzle),
    ]


def step_texts(
    task: Task,
    model: TRM,
    params: Params,
    puzzle: np.ndarray,
    rollout: int,
    path: Trajectory[np.ndarray],
) -> Iterator[Text]:
    """The board after each supervision step of one rollout, below a line about the step.

    Args:
      task: the kind of puzzle.
      model: the network.
      params: its parameters.
      puzzle: [S] tokens.
      rollout: its number, for the text.
      path: `answers` [D, S], `q_logits` [D] and `y` [D, L, C] of the rollout.
    """
    assert path.answers is not None and path.q_logits is not None and path.y is not None
    answers, q_logits = path.answers, path.q_logits
    sure = boards.confidence(model, params, path.y)
    film = boards.film(task, puzzle, answers, sure, q_logits)
    valid = task.satisfies_rules(answers, puzzle)
    for step, answer in enumerate(answers, start=1):
        line = f"rollout {rollout}, step {step} of {len(answers)}, Q {q_logits[step - 1]:+.2f}, "
        line += _verdict(valid[step - 1])
        if step > 1:
            line += f", cells changed: {(answer != answers[step - 2]).sum()}"
        yield Text(f"{line}\n") + boards.text(film, step)


def _verdict(valid: bool) -> str:
    return "the rules hold" if valid else "the rules are BROKEN"
