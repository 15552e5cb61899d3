"""PPBench's solutions and generator, and the scores of the paper."""

import importlib.util
import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
from ppbench_boards import board, random_puzzle, tokens

from ptrm_jax import metrics
from ptrm_jax.errors import InputError
from ptrm_jax.tasks import ppbench
from ptrm_jax.tasks.ppbench import PencilPuzzle, clues, generator, rules
from ptrm_jax.tasks.ppbench.puzzle import STATES, TYPES

needs_sat = pytest.mark.skipif(importlib.util.find_spec("pysat") is None, reason="needs python-sat")


def all_answers(puzzle: PencilPuzzle) -> set[tuple[tuple[str, ...], ...]]:
    """Every right answer, found by trying all."""
    cells, symbols = list(puzzle.open_cells), STATES[puzzle.pid]
    size = (-1, puzzle.height, puzzle.width)
    choices = list(itertools.product(range(1, len(symbols)), repeat=len(cells)))
    states = np.zeros((len(choices), puzzle.height * puzzle.width), int)
    states[:, cells] = choices
    clues = [[rules.clue_code(puzzle.pid, given) for given in row] for row in puzzle.problem]
    walls = None if puzzle.walls is None else np.tile(puzzle.walls, (len(choices), 1, 1))
    boards = states.reshape(size)
    right = rules.check(puzzle.pid, np.tile(clues, (len(choices), 1, 1)), boards, walls)
    return {
        tuple(tuple(symbols[state] for state in row) for row in board)
        for board in boards[right].tolist()
    }


@needs_sat
@pytest.mark.parametrize("pid", TYPES[1:])
def test_solutions_are_those_that_brute_force_finds(pid):
    rng = np.random.default_rng(0)
    counts = set()
    height, width = (2, 3) if pid == "shakashaka" else (3, 4)
    for _ in range(10):
        puzzle = random_puzzle(pid, height, width, rng)
        expected = all_answers(puzzle)
        counts.add(min(len(expected), 3))
        found = list(generator.solutions(puzzle))
        assert set(found) == expected and len(found) == len(expected)
        assert ppbench.count_solutions(puzzle) == min(len(expected), 2)
    assert len(counts) > 1


@needs_sat
@pytest.mark.parametrize("pid", TYPES)
def test_generated_puzzles_have_one_solution(pid):
    for size in (4, 6) if pid == "sudoku" else (4, 5):
        puzzles = ppbench.generate(pid, size, 2, seed=5)
        assert len({puzzle.problem for puzzle in puzzles}) == 2
        for puzzle in puzzles:
            assert (puzzle.pid, puzzle.height, puzzle.width) == (pid, size, size)
            assert puzzle.unique and ppbench.is_solved(puzzle)
            assert ppbench.count_solutions(replace(puzzle, answer=None)) == 1
            inputs, labels = tokens(puzzle)
            assert ppbench.satisfies_rules(labels, inputs)
        assert ppbench.generate(pid, size, 1, seed=5) == puzzles[:1]
        assert ppbench.generate(pid, size, 1, seed=6) != puzzles[:1]


@needs_sat
def test_no_clue_can_be_taken_away():
    for pid, instead in (("lightup", "-"), ("heyawake", "."), ("shakashaka", "5")):
        (puzzle,) = ppbench.generate(pid, 4, 1, seed=2)
        clued = [
            (row, column)
            for row, line in enumerate(puzzle.problem)
            for column, given in enumerate(line)
            if given not in (".", instead)
        ]
        for row, column in clued:
            problem = [list(line) for line in puzzle.problem]
            problem[row][column] = instead
            thinner = replace(puzzle, problem=tuple(map(tuple, problem)), answer=None)
            assert ppbench.count_solutions(thinner) == 2


@needs_sat
@pytest.mark.parametrize("pid", TYPES)
def test_clues_are_put_back(pid):
    """As many as asked, of those the solution has; the solution stays, and no other comes."""
    (puzzle,) = ppbench.generate(pid, 4, 1, seed=2)
    full = np.array(clues.all_clues(puzzle))
    missing = int((full != np.array(puzzle.problem)).sum())
    assert (missing == 0) == (pid == "nurikabe")
    for number in (0, 2, 99):
        easier = clues.with_more_clues(puzzle, number, np.random.default_rng(number))
        given, before = np.array(easier.problem), np.array(puzzle.problem)
        changed = given != before
        assert changed.sum() == min(number, missing)
        assert (given[changed] == full[changed]).all()
        assert ppbench.is_solved(easier) and easier.walls == puzzle.walls
        assert ppbench.count_solutions(replace(easier, answer=None)) == 1
        kept = np.array(easier.answer) == np.array(puzzle.answer)
        assert (kept | (changed & (pid == "tapa"))).all()
    again = clues.with_more_clues(puzzle, 2, np.random.default_rng(2))
    assert again == clues.with_more_clues(puzzle, 2, np.random.default_rng(2))


def test_clues_need_a_solution():
    puzzle = board("tapa", ". ./. .")
    with pytest.raises(InputError, match=r"must have an answer to show more of it.*leave it out"):
        clues.all_clues(puzzle)
    solved = replace(puzzle, answer=(("#", "#"), ("#", "+")))
    with pytest.raises(InputError, match="number must be"):
        clues.with_more_clues(solved, -1, np.random.default_rng(0))
    assert clues.all_clues(solved) == ((".", "."), (".", "3"))


@needs_sat
@pytest.mark.parametrize("pid", TYPES)
def test_a_solution_is_deduced_cell_by_cell(pid):
    (puzzle,) = ppbench.generate(pid, 4, 1, seed=4)
    found = ppbench.deduce(puzzle, np.random.default_rng(0))
    replace(puzzle, moves=found.moves)  # which checks that they lead to the answer
    again = ppbench.deduce(puzzle, np.random.default_rng(0))
    assert again == found and 0 <= found.lookaheads + found.guesses <= len(found.moves)
    assert ppbench.deduce(puzzle, np.random.default_rng(1)).moves != found.moves


@needs_sat
def test_cells_that_follow_come_before_those_that_need_more():
    """A bulb beside a 1 that has no other place, then what it lights; a sudoku without clues."""
    forced = board("lightup", ". 1 -", "# . .")
    found = ppbench.deduce(forced, np.random.default_rng(0))
    assert found == (((0, "#"),), 0, 0)
    free = board("sudoku", ". . . ./" * 3 + ". . . .", "1 2 3 4/3 4 1 2/2 1 4 3/4 3 2 1")
    found = ppbench.deduce(free, np.random.default_rng(0))
    assert found.guesses > 1 and len(found.moves) == 16
    with pytest.raises(InputError, match="has none; leave it out"):
        ppbench.deduce(replace(free, answer=None), np.random.default_rng(0))


def test_sudokus_without_solution_have_none():
    assert ppbench.count_solutions(board("sudoku", "1 1 . ./" + ". . . ./" * 2 + ". . . .")) == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ppbench.generate("tapa", 7, 1, 0), "'tapa', 7, 1 and 0"),
        (lambda: ppbench.generate("sudoku", 5, 1, 0), "'sudoku', 5"),
        (lambda: ppbench.generate("yajilin", 5, 1, 0), "'yajilin'"),
        (lambda: ppbench.generate("tapa", 5, -1, 0), "-1 and 0"),
        (lambda: ppbench.generate("tapa", 5, 1, -1), "1 and -1"),
        (lambda: ppbench.count_solutions(board("tapa", "."), 0), "limit must be .* got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_a_run_that_finds_no_more_puzzles_ends(monkeypatch):
    monkeypatch.setattr(ppbench.generator, "_draw_tapa", lambda size, rng: None)
    monkeypatch.setattr(ppbench.generator, "_MAX_REDRAWS", 3)
    with pytest.raises(InputError, match="3 draws of puzzle 0 gave none"):
        ppbench.generate("tapa", 4, 1, 0)


def test_counting_solutions_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pysat", None)
    monkeypatch.setitem(sys.modules, "pysat.card", None)
    with pytest.raises(ImportError, match="pip install python-sat"):
        ppbench.count_solutions(board("tapa", ". ."))


# Scores

KINDS = np.repeat(np.arange(6), [4, 2, 1, 1, 2, 5])
CORRECT = np.array([1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1])


def test_every_puzzle_of_the_five_types_weighs_the_same():
    scores = ppbench.by_type(CORRECT, KINDS)
    assert {pid: score.mean for pid, score in scores.items()} == dict(
        zip(TYPES, (0.75, 0.5, 1, 0, 0, 1), strict=True)
    )
    assert [score.num_puzzles for score in scores.values()] == [4, 2, 1, 1, 2, 5]
    total = ppbench.aggregate(CORRECT, KINDS)
    assert total == metrics.interval(CORRECT[:10]) and total.mean == 0.5
    order = np.random.default_rng(0).permutation(15)
    assert ppbench.aggregate(CORRECT[order], KINDS[order]).mean == 0.5


def test_seeds_are_averaged():
    seeds = np.stack([CORRECT, 1 - CORRECT, CORRECT])
    assert ppbench.by_type(seeds, KINDS)["sudoku"].mean == pytest.approx((0.75 + 0.25 + 0.75) / 3)
    assert ppbench.aggregate(seeds, KINDS).num_puzzles == 10


def test_the_papers_aggregate_follows_from_its_types():
    """Table 1, K=100 and D=48: the types' accuracies, weighted by puzzles, make 91.2 %."""
    counts, percent = (15, 8, 9, 7, 10), (97.8, 100, 88.9, 85.7, 80.0)
    types = np.repeat(np.arange(5), counts)
    chances = np.repeat(np.array(percent) / 100, counts)
    assert ppbench.aggregate(chances, types).mean == pytest.approx(0.912, abs=5e-4)


def test_cost_is_the_papers():
    # An H100 at $2.50 per hour: 1.44 s are $0.001.
    assert ppbench.dollars_per_puzzle(1.44) == pytest.approx(0.001)
    assert ppbench.dollars_per_puzzle(10, dollars_per_hour=360) == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ppbench.by_type(CORRECT, KINDS[:3]), r"\(15,\) and \(3,\)"),
        (lambda: ppbench.by_type(CORRECT, KINDS + 1), "0 to 5; types holds"),
        (lambda: ppbench.by_type(CORRECT, KINDS * 1.0), "must be integers"),
        (lambda: ppbench.by_type(CORRECT * 100, KINDS), "fractions"),
        (lambda: ppbench.aggregate([1, 1], [5, 5]), "2 puzzles, none of these"),
        (lambda: ppbench.dollars_per_puzzle(-1), "seconds_per_puzzle is -1"),
        (lambda: ppbench.dollars_per_puzzle(1, dollars_per_hour=np.inf), "dollars_per_hour inf"),
    ],
)
def test_malformed_scores_are_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()
