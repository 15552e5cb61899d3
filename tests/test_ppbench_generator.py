"""PPBench's solver and generator, and the scores of the paper."""

import importlib.util
import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest

from ptrm_jax import metrics
from ptrm_jax.tasks import ppbench
from ptrm_jax.tasks.ppbench import rules
from ptrm_jax.tasks.ppbench.records import STATES, TYPES, Record, rooms_to_walls

needs_sat = pytest.mark.skipif(importlib.util.find_spec("pysat") is None, reason="needs python-sat")


def all_answers(record: Record) -> set:
    """Every right answer, found by trying all."""
    cells, symbols = list(record.open_cells), STATES[record.pid]
    size = (-1, record.height, record.width)
    choices = list(itertools.product(range(1, len(symbols)), repeat=len(cells)))
    states = np.zeros((len(choices), record.height * record.width), int)
    states[:, cells] = choices
    clues = [[rules.clue_code(record.pid, given) for given in row] for row in record.problem]
    walls = None if record.walls is None else np.tile(record.walls, (len(choices), 1, 1))
    boards = states.reshape(size)
    right = rules.check(record.pid, np.tile(clues, (len(choices), 1, 1)), boards, walls)
    return {
        tuple(tuple(symbols[state] for state in row) for row in board)
        for board in boards[right].tolist()
    }


def small(pid: str, rng: np.random.Generator) -> Record:
    height, width = {"shakashaka": (2, 3)}.get(pid, (3, 4))
    share, givens = {
        "lightup": (0.3, "--012"),
        "nurikabe": (0.3, "-123"),
        "heyawake": (0.15, "01"),
        "tapa": (0.2, ["-", "1", "2", "3", "1,-"]),
        "shakashaka": (0.25, "512"),
    }[pid]
    problem = np.full((height, width), ".", dtype=object)
    for cell in itertools.product(range(height), range(width)):
        if rng.random() < share:
            problem[cell] = str(rng.choice(list(givens)))
    walls = None
    if pid == "heyawake":
        walls = rooms_to_walls(rng.integers(3, size=(height, width)).tolist())
    return Record(pid, tuple(map(tuple, problem)), walls=walls)


@needs_sat
@pytest.mark.parametrize("pid", TYPES[1:])
def test_solutions_are_those_that_trying_finds(pid):
    rng = np.random.default_rng(0)
    counts = set()
    for _ in range(10):
        record = small(pid, rng)
        expected = all_answers(record)
        counts.add(min(len(expected), 3))
        assert ppbench.count_solutions(record, 10**6) == len(expected)
        assert ppbench.count_solutions(record) == min(len(expected), 2)
        solved = ppbench.solve(record)
        assert (solved is None) == (not expected)
        assert solved is None or solved.answer in expected
    assert len(counts) > 1


@needs_sat
@pytest.mark.parametrize("pid", TYPES)
def test_puzzles_made_have_one_solution(pid):
    sizes = (4, 6) if pid == "sudoku" else (4, 5)
    for size in sizes:
        records = ppbench.generate(pid, size, 3, seed=5)
        assert len({record.problem for record in records}) == 3
        for record in records:
            assert (record.pid, record.height, record.width) == (pid, size, size)
            assert record.unique and ppbench.is_solved(record)
            unsolved = replace(record, answer=None)
            assert ppbench.count_solutions(unsolved) == 1
            assert ppbench.solve(unsolved) == record
            inputs, labels = ppbench.encode_problem(record), ppbench.encode_answer(record)
            assert ppbench.satisfies_rules(labels, inputs)
        assert ppbench.generate(pid, size, 2, seed=5) == records[:2]
        assert ppbench.generate(pid, size, 3, seed=6) != records


@needs_sat
def test_no_clue_can_be_taken_away():
    for pid, instead in (("lightup", "-"), ("heyawake", "."), ("shakashaka", "5")):
        (record,) = ppbench.generate(pid, 4, 1, seed=2)
        clued = [
            (row, column)
            for row, line in enumerate(record.problem)
            for column, given in enumerate(line)
            if given not in (".", instead)
        ]
        for row, column in clued:
            problem = [list(line) for line in record.problem]
            problem[row][column] = instead
            thinner = replace(record, problem=tuple(map(tuple, problem)), answer=None)
            assert ppbench.count_solutions(thinner) == 2


def test_sudokus_without_solution_have_none():
    record = Record("sudoku", (("1", "1", ".", "."), *[(".",) * 4] * 3))
    assert ppbench.solve(record) is None
    assert ppbench.count_solutions(record) == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ppbench.generate("tapa", 7, 1, 0), "'tapa', 7, 1 and 0"),
        (lambda: ppbench.generate("sudoku", 5, 1, 0), "'sudoku', 5"),
        (lambda: ppbench.generate("yajilin", 5, 1, 0), "'yajilin'"),
        (lambda: ppbench.generate("tapa", 5, -1, 0), "-1 and 0"),
        (lambda: ppbench.generate("tapa", 5, 1, -1), "1 and -1"),
        (lambda: ppbench.count_solutions(Record("tapa", ((".",),)), 0), "limit is 0"),
    ],
)
def test_what_cannot_be_made_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_a_run_that_finds_no_more_puzzles_ends(monkeypatch):
    monkeypatch.setattr(ppbench.generator, "_draw_tapa", lambda size, rng: None)
    monkeypatch.setattr(ppbench.generator, "_MAX_REDRAWS", 3)
    with pytest.raises(ValueError, match="3 draws of puzzle 0 gave none"):
        ppbench.generate("tapa", 4, 1, 0)


def test_solving_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pysat", None)
    monkeypatch.setitem(sys.modules, "pysat.card", None)
    with pytest.raises(ImportError, match="pip install python-sat"):
        ppbench.solve(Record("tapa", ((".", "."),)))


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


def test_the_table_has_a_row_for_each_method():
    lines = ppbench.table({"TRM": CORRECT, "PTRM": np.ones(15)}, KINDS).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("| method | aggregate of 5 types | sudoku (4) | lightup (2) |")
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[0] == "TRM" and cells[1].startswith("50.0 % [")
    assert cells[2:] == ["75.0", "50.0", "100.0", "0.0", "0.0", "100.0"]
    assert {line.count("|") for line in lines} == {9}


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
        (lambda: ppbench.table({}, KINDS), "at least one method"),
        (lambda: ppbench.dollars_per_puzzle(-1), "seconds_per_puzzle is -1"),
        (lambda: ppbench.dollars_per_puzzle(1, dollars_per_hour=np.inf), "dollars_per_hour inf"),
    ],
)
def test_what_cannot_be_summed_up_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
