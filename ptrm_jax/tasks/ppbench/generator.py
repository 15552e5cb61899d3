"""Solutions of the six types by SAT, and a generator of small puzzles with one solution.

This needs the package python-sat, imported when a function is first called. Sudoku is delegated to
`ptrm_jax.tasks.sudoku`, which has its own solver and generator.

Connectivity is not encoded beforehand: when a model has an area in several parts, a clause that
excludes this and similar models is added, and the search continues. `deduce` orders the cells of a
solution as a solver without search would find them.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ptrm_jax.errors import InputError
from ptrm_jax.tasks import sudoku as sudoku_task
from ptrm_jax.tasks.ppbench.clues import BLACK, all_clues, with_givens
from ptrm_jax.tasks.ppbench.puzzle import (
    BOTTOM,
    OPEN,
    RIGHT,
    STATES,
    TYPES,
    PencilPuzzle,
    Rows,
    rooms_of,
    rooms_to_walls,
    to_rows,
)
from ptrm_jax.tasks.ppbench.rules import (
    EIGHTHS,
    NO_CLUE,
    NO_NUMBER,
    QUARTERS,
    RING,
    clue_code,
    tapa_table,
)

_MAX_REDRAWS = 10_000
_MAX_SIDE = 6

Cell = tuple[int, int]
Marks = dict[Cell, dict[str, list[int]]]
"""By cell and symbol, the literals that are true if the cell has this symbol."""


def count_solutions(puzzle: PencilPuzzle, limit: int = 2) -> int:
    """The number of solutions of a puzzle, counted up to `limit`; with the default, 1 means unique.

    Most 10x10 puzzles take well below a second. A nurikabe with islands of dozens of cells can take
    too long to be practical.

    Raises:
      ImportError: python-sat is not installed.
      InputError: `limit` is below 1.
    """
    if limit < 1:
        raise InputError(f"limit must be at least 1; got {limit}; pass 2 to test uniqueness")
    if puzzle.pid == "sudoku":
        return sudoku_task.count_solutions(_sudoku_tokens(puzzle), limit)
    return sum(1 for _ in itertools.islice(solutions(puzzle), limit))


def generate(pid: str, size: int, count: int, seed: int) -> list[PencilPuzzle]:
    """Random puzzles of size x size cells, each with one solution, solved and all distinct.

    A solved board is drawn first, with all possible clues; if its solution is unique, clues are
    removed in random order as long as it stays unique. Nurikabe keeps all clues, since each island
    needs one. The draw is not uniform in any sense.

    Puzzle i depends on the arguments other than `count`, on i and on the version of python-sat, so
    a longer run begins with the shorter one. Puzzles that differ by a symmetry are distinct.

    Puzzles per second on one core, at 4x4, 5x5 and 6x6: lightup 750, 380, 210; heyawake 210, 120,
    67; tapa 200, 87, 30; shakashaka 140, 62, 20; nurikabe 180, 58, 11; sudoku thousands.

    Args:
      pid: one of `TYPES`.
      size: 4, 5 or 6; for sudoku 4 or 6.
      count: number of puzzles, at least 0.
      seed: any integer from 0.

    Raises:
      ImportError: python-sat is not installed.
      InputError: an argument is out of range, or no further distinct puzzle was found.
    """
    sizes = (4, 6) if pid == "sudoku" else (4, 5, _MAX_SIDE)
    if pid not in TYPES or size not in sizes or count < 0 or seed < 0:
        raise InputError(
            f"pid must be one of {', '.join(TYPES)}, size 4 to {_MAX_SIDE} (sudoku: 4 or 6), count "
            f"and seed at least 0; got {pid!r}, {size}, {count} and {seed}; correct them"
        )
    if pid == "sudoku":
        return _sudokus(size, count, seed)
    draw = {
        "lightup": _draw_lightup,
        "nurikabe": _draw_nurikabe,
        "heyawake": _draw_heyawake,
        "tapa": _draw_tapa,
        "shakashaka": _draw_shakashaka,
    }[pid]
    puzzles: dict[tuple[object, ...], PencilPuzzle] = {}  # in order of insertion
    for index in range(count):
        for redraw in range(_MAX_REDRAWS):
            key = (TYPES.index(pid), size, index, redraw)
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
            puzzle = draw(size, rng)
            if puzzle is not None and (puzzle.problem, puzzle.walls) not in puzzles:
                break
        else:
            raise InputError(
                f"{count} distinct puzzles of {pid} of {size}x{size} cells must exist and not be "
                f"rare; {_MAX_REDRAWS} draws of puzzle {index} gave none; pass a smaller count or "
                "a larger size"
            )
        name = f"{pid}_{size}x{size}_{seed}_{index}"
        puzzles[puzzle.problem, puzzle.walls] = replace(puzzle, name=name, unique=True)
    return list(puzzles.values())


class Deduction(NamedTuple):
    """A solution in the order in which its cells were found.

    Attributes:
      moves: as `PencilPuzzle.moves`.
      lookaheads: cells that were found by refuting all their other symbols.
      guesses: cells that were not found in either way, and were taken from the solution.
    """

    moves: tuple[tuple[int, str], ...]
    lookaheads: int
    guesses: int


def deduce(puzzle: PencilPuzzle, rng: np.random.Generator) -> Deduction:
    """The solution of a puzzle as a trajectory, and how hard it is to find without search.

    Cells that follow from the decided ones by unit propagation come first, in random order. When
    nothing follows, the next is a random cell all of whose other symbols propagation refutes, a
    lookahead, or, if there is none, any cell, a guess. Propagation knows the clauses about
    connectivity that excluding all other solutions took.

    Args:
      puzzle: solved, with this solution only.
      rng: of the order.

    Raises:
      ImportError: python-sat is not installed.
      InputError: the puzzle has no answer.
    """
    if puzzle.answer is None:
        raise InputError(
            f"a puzzle must have an answer to be deduced; {puzzle.name or 'this one'} has none; "
            "leave it out"
        )
    formula, marks = _formula(puzzle)
    answer = [symbol for row in puzzle.answer for symbol in row]
    right = {cell: marks[divmod(cell, puzzle.width)] for cell in puzzle.open_cells}
    variables = sorted({abs(lit) for m in right.values() for lits in m.values() for lit in lits})
    if puzzle.pid != "sudoku":
        for _ in formula.models(variables):  # adds the clauses about connectivity
            pass
    undecided = rng.permutation(puzzle.open_cells).tolist()
    moves: list[tuple[int, str]] = []
    # As assumptions, since the solver does not report what follows from its clauses alone.
    assumed = [lit for clause in formula.clauses if len(clause) == 1 for lit in clause]
    longer = [clause for clause in formula.clauses if len(clause) > 1]
    lookaheads = guesses = 0
    with _pysat().solvers.Glucose4(bootstrap_with=longer) as solver:

        def refuted(cell: int) -> bool:
            others = (lits for symbol, lits in right[cell].items() if symbol != answer[cell])
            return not any(solver.propagate(assumed + lits)[0] for lits in others)

        while undecided:
            _, implied = solver.propagate(assumed)
            known = {*implied, *assumed}
            found = [cell for cell in undecided if known.issuperset(right[cell][answer[cell]])]
            if not found:
                found = [cell for cell in undecided if refuted(cell)][:1]
                lookaheads += len(found)
            if not found:
                found = undecided[:1]
                guesses += 1
            for cell in found:
                undecided.remove(cell)
                moves.append((cell, answer[cell]))
                assumed += right[cell][answer[cell]]
    return Deduction(tuple(moves), lookaheads, guesses)


def _sudokus(size: int, count: int, seed: int) -> list[PencilPuzzle]:
    inputs, labels = sudoku_task.generate(size, count, seed)
    puzzles = []
    for index, pair in enumerate(zip(inputs, labels, strict=True)):
        problem, answer = (to_rows(sudoku_task.decode(tokens), size) for tokens in pair)
        name = f"sudoku_{size}x{size}_{seed}_{index}"
        puzzles.append(PencilPuzzle("sudoku", problem, answer, name=name, unique=True))
    return puzzles


def _sudoku_tokens(puzzle: PencilPuzzle) -> np.ndarray:
    return sudoku_task.encode("".join(itertools.chain(*puzzle.problem)))


# Drawing.


def _draw_lightup(size: int, rng: np.random.Generator) -> PencilPuzzle | None:
    black = rng.random((size, size)) < rng.uniform(0.12, 0.3)
    bulbs, lit = np.zeros_like(black), black.copy()
    # Bulbs are placed in dark cells only, so they do not see each other, until no cell is dark.
    for cell in rng.permutation(size * size).tolist():
        place = divmod(cell, size)
        if not lit[place]:
            bulbs[place] = lit[place] = True
            for seen in _seen_from(place, black):
                lit[seen] = True
    if black.all():
        return None
    problem = _rows(np.where(black, BLACK["lightup"], OPEN))
    answer = _rows(np.where(black, OPEN, np.where(bulbs, "#", "+")))
    return _thinned(PencilPuzzle("lightup", problem, answer), rng)


def _draw_nurikabe(size: int, rng: np.random.Generator) -> PencilPuzzle | None:
    shaded = _random_wall(size, rng)
    islands, count = ndimage.label(~shaded)
    problem = np.full((size, size), OPEN, dtype=object)
    for island in range(1, count + 1):
        cells = np.argwhere(islands == island)
        problem[tuple(rng.choice(cells))] = str(len(cells))
    answer = np.where(problem != OPEN, OPEN, np.where(shaded, "#", "+"))
    puzzle = PencilPuzzle("nurikabe", _rows(problem), _rows(answer))
    if not count:
        return None
    with _Rivals(puzzle) as rivals:
        return None if rivals.exist() else puzzle


def _draw_heyawake(size: int, rng: np.random.Generator) -> PencilPuzzle | None:
    rooms = _random_rooms(size, rng)
    blank = PencilPuzzle("heyawake", ((OPEN,) * size,) * size, walls=rooms_to_walls(rooms))
    answer = next(solutions(blank, rng), None)
    if answer is None:
        return None
    return _thinned(replace(blank, answer=answer), rng)


def _draw_tapa(size: int, rng: np.random.Generator) -> PencilPuzzle | None:
    shaded = _random_wall(size, rng)
    problem = _rows(np.full((size, size), OPEN))
    answer = _rows(np.where(shaded, "#", "+"))
    return _thinned(PencilPuzzle("tapa", problem, answer), rng)


def _draw_shakashaka(size: int, rng: np.random.Generator) -> PencilPuzzle | None:
    formula = _Formula()
    quarters = _shakashaka_board(formula, size, size)
    # Without this the solver blackens most of the board.
    may_be_black = rng.random((size, size)) < rng.uniform(0.1, 0.5)
    for cell in zip(*np.nonzero(~may_be_black), strict=True):
        formula.clauses.append(quarters[cell])
    shapes = rng.choice(len(QUARTERS), (size, size), p=[0.1, 0.3, 0.15, 0.15, 0.15, 0.15])
    wished = [
        quarter if white else -quarter
        for cell, shape in np.ndenumerate(shapes)
        for quarter, white in zip(quarters[cell], QUARTERS[shape], strict=True)
    ]
    true = next(formula.models([], wished), None)
    if true is None:
        return None
    white_quarters = QUARTERS.tolist()
    states = {
        cell: white_quarters.index([quarter in true for quarter in lits])
        for cell, lits in quarters.items()
    }
    if max(states.values()) < 2:  # no triangle
        return None
    problem = np.full((size, size), OPEN, dtype=object)
    answer = problem.copy()
    for cell, state in states.items():
        answer[cell] = STATES["shakashaka"][state]
        if state == 0:
            problem[cell] = BLACK["shakashaka"]
    return _thinned(PencilPuzzle("shakashaka", _rows(problem), _rows(answer)), rng)


def _random_wall(size: int, rng: np.random.Generator) -> np.ndarray:
    """Connected shaded cells without a 2x2: [size, size] bool."""
    shaded = np.zeros((size, size), bool)
    shaded[tuple(rng.integers(size, size=2))] = True
    target = rng.uniform(0.4, 0.65) * size * size
    while shaded.sum() < target:
        reach = ndimage.binary_dilation(shaded) & ~shaded
        for place in rng.permutation(np.argwhere(reach)).tolist():
            shaded[tuple(place)] = True
            if not ndimage.binary_erosion(shaded, np.ones((2, 2))).any():
                break
            shaded[tuple(place)] = False
        else:
            return shaded
    return shaded


def _random_rooms(size: int, rng: np.random.Generator) -> np.ndarray:
    """A division into rectangles of at most 6 cells: ids [size, size] int64."""
    rooms = np.zeros((size, size), np.int64)
    pending, count = [(0, size, 0, size)], 0
    while pending:
        top, bottom, left, right = pending.pop()
        height, width = bottom - top, right - left
        area = height * width
        if area == 1 or (area <= 6 and rng.random() < 0.7):
            rooms[top:bottom, left:right] = count
            count += 1
        elif width == 1 or (height > 1 and rng.integers(height + width) < height):
            cut = int(rng.integers(top + 1, bottom))
            pending += [(top, cut, left, right), (cut, bottom, left, right)]
        else:
            cut = int(rng.integers(left + 1, right))
            pending += [(top, bottom, left, cut), (top, bottom, cut, right)]
    return rooms


def _thinned(puzzle: PencilPuzzle, rng: np.random.Generator) -> PencilPuzzle | None:
    """The puzzle with a minimal set of clues, or None if it has several solutions with all clues.

    Args:
      puzzle: solved, without clues.
      rng: of the order in which clues are removed.
    """
    given, full = np.array(puzzle.problem, object), np.array(all_clues(puzzle), object)
    clued = [(row, column) for row, column in np.argwhere(full != given).tolist()]
    kept = dict.fromkeys(clued)
    with _Rivals(with_givens(puzzle, full), clued, puzzle.answer) as rivals:
        if rivals.exist(kept):
            return None
        for index in rng.permutation(len(clued)).tolist():
            removed = clued[index]
            del kept[removed]
            if rivals.exist(kept):
                kept[removed] = None
    for cell in kept:
        given[cell] = full[cell]
    return with_givens(puzzle, given)


class _Rivals:
    """Other solutions of a solved puzzle than its own, with some of its clues; a context manager.

    One solver answers for all sets of clues, so that what it has learnt is kept.

    Args:
      puzzle: solved, not a sudoku.
      optional: cells whose clues may be left out; a black cell, room or open cell remains.
      answer: the puzzle's solution without these clues, if it then has more cells to decide.
    """

    def __init__(
        self,
        puzzle: PencilPuzzle,
        optional: Collection[Cell] = (),
        answer: Rows | None = None,
    ) -> None:
        solution = puzzle.answer if answer is None else answer
        assert solution is not None
        formula, marks = _formula(puzzle, optional)
        symbols = {cell: solution[cell[0]][cell[1]] for cell in marks}
        formula.clauses.append(
            [
                -lit
                for cell, symbol in symbols.items()
                if symbol != OPEN
                for lit in marks[cell][symbol]
            ]
        )
        self._formula = formula
        self._solver = _pysat().solvers.Glucose4(bootstrap_with=formula.clauses)

    def __enter__(self) -> "_Rivals":
        return self

    def __exit__(self, *_: object) -> None:
        self._solver.delete()

    def exist(self, kept: Iterable[Cell] = ()) -> bool:
        """Whether there is one that fits the clues in `kept` and those that are not optional."""
        switches = [self._formula.switches[cell] for cell in kept]
        while self._solver.solve(assumptions=switches):
            cuts = self._formula.cuts(self._solver.get_model())
            if not cuts:
                return True
            self._solver.append_formula(cuts)
        return False


# Clauses.


class _Formula:
    """Clauses over numbered variables, and conditions that add clauses when a model breaks them.

    A clue whose cell is in `switches` holds only if the variable there is true.
    """

    def __init__(self) -> None:
        self.num_variables = 0
        self.clauses: list[list[int]] = []
        self.conditions: list[Callable[[set[int]], list[list[int]]]] = []
        self.switches: dict[Cell, int] = {}

    def variable(self) -> int:
        self.num_variables += 1
        return self.num_variables

    def exactly(self, number: int, literals: list[int]) -> None:
        """Requires that `number` of the literals are true."""
        if number > len(literals):
            self.clauses.append([])
        elif number in (0, len(literals)):
            self.clauses += [[literal if number else -literal] for literal in literals]
        else:
            encoded = _pysat().card.CardEnc.equals(
                literals, number, self.num_variables, encoding=_pysat().card.EncType.seqcounter
            )
            self.num_variables = max(self.num_variables, encoded.nv)
            self.clauses += encoded.clauses

    @contextlib.contextmanager
    def clue(self, cell: Cell) -> Iterator[None]:
        """Clauses that are added within belong to the clue in this cell."""
        first = len(self.clauses)
        yield
        if cell in self.switches:
            switch = self.switches[cell]
            self.clauses[first:] = [[*clause, -switch] for clause in self.clauses[first:]]

    def cuts(self, model: list[int]) -> list[list[int]]:
        """Clauses that hold in all models and exclude this one, none if it meets the conditions."""
        true = {literal for literal in model if literal > 0}
        return [clause for condition in self.conditions for clause in condition(true)]

    def models(self, answer: list[int], wished: list[int] | None = None) -> Iterator[set[int]]:
        """Models that differ in the variables `answer`, each as the set of its true variables.

        The search tries the literals `wished` first.
        """
        if [] in self.clauses:
            return
        with _pysat().solvers.Glucose4(bootstrap_with=self.clauses) as solver:
            if wished:
                solver.set_phases(wished)
            while solver.solve():
                model = solver.get_model()
                cuts = self.cuts(model)
                self.clauses += cuts
                if not cuts:
                    true = {literal for literal in model if literal > 0}
                    yield true
                    cuts = [[-lit if lit in true else lit for lit in answer]]
                for clause in cuts:
                    solver.add_clause(clause)

    def connect(self, literals: dict[Cell, int], root: Cell | None = None) -> None:
        """Requires that the cells with true literals are one area, with `root` in it if given."""

        def condition(true: set[int]) -> list[list[int]]:
            areas = _areas({cell for cell, lit in literals.items() if _holds(lit, true)})
            if root is not None:
                areas = [area for area in areas if root not in area]
            elif len(areas) < 2:
                return []
            clauses = []
            for area in areas:
                beside = {
                    literals[other]
                    for cell in area
                    for other in _beside(cell)
                    if other in literals and other not in area
                }
                # With a true cell here and one elsewhere, a cell beside the area must be true.
                clause = [-literals[min(area)], *beside]
                if root is None:
                    other = next(other for other in areas if other is not area)
                    clause.append(-literals[min(other)])
                clauses.append(clause)
            return clauses

        self.conditions.append(condition)


def solutions(puzzle: PencilPuzzle, rng: np.random.Generator | None = None) -> Iterator[Rows]:
    """Answers of a puzzle other than sudoku, as `PencilPuzzle.answer`.

    Args:
      puzzle: its answer is ignored.
      rng: if given, the first answer is random, not uniform in any sense.

    Raises:
      ImportError: python-sat is not installed.
    """
    formula, marks = _formula(puzzle)
    width = puzzle.width
    answers = [divmod(cell, width) for cell in puzzle.open_cells]
    variables = sorted(
        {abs(lit) for cell in answers for lits in marks[cell].values() for lit in lits}
    )
    wished = None
    if rng is not None:
        wished = [v if rng.random() < 0.5 else -v for v in variables]
    for true in formula.models(variables, wished):
        rows = [[OPEN] * width for _ in range(puzzle.height)]
        for row, column in answers:
            rows[row][column] = next(
                symbol
                for symbol, lits in marks[row, column].items()
                if all(_holds(lit, true) for lit in lits)
            )
        yield _rows(rows)


def _formula(puzzle: PencilPuzzle, optional: Collection[Cell] = ()) -> tuple[_Formula, Marks]:
    """The rules and givens of a puzzle, and the literals of each symbol in each cell.

    Clues in `optional` get a variable that switches them on.
    """
    height, width = puzzle.height, puzzle.width
    clues = {
        (row, column): clue_code(puzzle.pid, given)
        for row, line in enumerate(puzzle.problem)
        for column, given in enumerate(line)
    }
    formula = _Formula()
    if puzzle.pid == "sudoku":
        return formula, _sudoku(formula, clues, width)
    if puzzle.pid == "shakashaka":
        return formula, _shakashaka(formula, clues, height, width, optional)
    shaded = {cell: formula.variable() for cell in clues}
    formula.switches = {cell: formula.variable() for cell in optional}
    build = {
        "lightup": _lightup,
        "nurikabe": _nurikabe,
        "heyawake": _heyawake,
        "tapa": _tapa,
    }[puzzle.pid]
    build(formula, shaded, clues, puzzle)
    return formula, {cell: {"#": [lit], "+": [-lit]} for cell, lit in shaded.items()}


def _sudoku(formula: _Formula, clues: dict[Cell, int], size: int) -> Marks:
    digits = range(1, size + 1)
    marks = {cell: {str(digit): [formula.variable()] for digit in digits} for cell in clues}
    units = [
        [divmod(cell, size) for cell in u] for u in sudoku_task.board_for(size**2).units.tolist()
    ]
    groups = [[lit for (lit,) in symbols.values()] for symbols in marks.values()]
    groups += [[marks[cell][str(digit)][0] for cell in unit] for unit in units for digit in digits]
    for group in groups:  # one digit in each cell, one cell for each digit in each unit
        formula.clauses.append(group)
        formula.clauses += [[-a, -b] for a, b in itertools.combinations(group, 2)]
    formula.clauses += [marks[cell][str(clue)] for cell, clue in clues.items() if clue != NO_CLUE]
    return marks


def _lightup(
    formula: _Formula, bulbs: dict[Cell, int], clues: dict[Cell, int], puzzle: PencilPuzzle
) -> None:
    black = np.array([[given != OPEN for given in row] for row in puzzle.problem])
    for cell, clue in clues.items():
        if clue != NO_CLUE:
            formula.clauses.append([-bulbs[cell]])
            if clue != NO_NUMBER:
                around = _beside(cell, puzzle.height, puzzle.width)
                with formula.clue(cell):
                    formula.exactly(clue, [bulbs[other] for other in around])
            continue
        seen = _seen_from(cell, black)
        formula.clauses.append([bulbs[cell], *(bulbs[other] for other in seen)])
        formula.clauses += [[-bulbs[cell], -bulbs[other]] for other in seen if other > cell]


def _nurikabe(
    formula: _Formula, shaded: dict[Cell, int], clues: dict[Cell, int], puzzle: PencilPuzzle
) -> None:
    _forbid_squares(formula, shaded)
    formula.connect(shaded)
    islands = [cell for cell, clue in clues.items() if clue != NO_CLUE]
    members: dict[Cell, dict[Cell, int]] = {}  # by island, by cell
    for island in islands:
        size = clues[island] if clues[island] > 0 else math.inf
        members[island] = {
            cell: formula.variable()
            for cell in clues
            if abs(cell[0] - island[0]) + abs(cell[1] - island[1]) < size
            and (cell == island or cell not in islands)
        }
        formula.clauses.append([members[island][island]])
        if clues[island] > 0:
            formula.exactly(clues[island], list(members[island].values()))
        formula.connect(members[island], island)
    for cell in clues:
        owners = {island: lits[cell] for island, lits in members.items() if cell in lits}
        # A cell is shaded or belongs to one island, to which unshaded cells beside it belong too.
        formula.clauses.append([shaded[cell], *owners.values()])
        formula.clauses += [[-shaded[cell], -lit] for lit in owners.values()]
        formula.clauses += [[-a, -b] for a, b in itertools.combinations(owners.values(), 2)]
        for island, lit in owners.items():
            for other in _beside(cell, puzzle.height, puzzle.width):
                same = members[island].get(other)
                formula.clauses.append([-lit, shaded[other], *([same] if same else [])])


def _heyawake(
    formula: _Formula, shaded: dict[Cell, int], clues: dict[Cell, int], puzzle: PencilPuzzle
) -> None:
    walls = np.array(puzzle.walls)
    formula.clauses.append(list(shaded.values()))
    formula.connect({cell: -lit for cell, lit in shaded.items()})
    for cell, lit in shaded.items():
        for other in _beside(cell, puzzle.height, puzzle.width):
            formula.clauses.append([-lit, -shaded[other]])
    rooms = rooms_of(walls)
    for cell, clue in clues.items():
        if clue != NO_CLUE:
            room = zip(*np.nonzero(rooms == rooms[cell]), strict=True)
            with formula.clue(cell):
                formula.exactly(clue, [shaded[int(row), int(column)] for row, column in room])
    literals = np.array(list(shaded.values())).reshape(walls.shape)
    for behind, lines in ((walls & RIGHT, literals), (walls.T & BOTTOM, literals.T)):
        for line_walls, line in zip(behind, lines.tolist(), strict=True):
            # From the cell before a wall to the cell behind the next wall, one must be shaded.
            for first, second in itertools.pairwise(np.flatnonzero(line_walls[:-1]).tolist()):
                formula.clauses.append(line[first : second + 2])


def _tapa(
    formula: _Formula, shaded: dict[Cell, int], clues: dict[Cell, int], puzzle: PencilPuzzle
) -> None:
    _forbid_squares(formula, shaded)
    formula.connect(shaded)
    formula.clauses.append(list(shaded.values()))
    for (row, column), clue in clues.items():
        if clue == NO_CLUE:
            continue
        ring = [shaded.get((row + down, column + right)) for down, right in RING]
        on_board = tuple(lit is not None for lit in ring)
        literals = [lit for lit in ring if lit is not None]
        with formula.clue((row, column)):
            formula.clauses.append([-shaded[row, column]])
            for signs in _tapa_signs(clue, on_board):
                formula.clauses.append([s * lit for s, lit in zip(signs, literals, strict=True)])


@cache
def _tapa_signs(clue: int, on_board: tuple[bool, ...]) -> list[tuple[int, ...]]:
    """Signs of the literals in the clauses of a clue, over the cells of its ring on the board."""
    signs = []
    for number, fits in enumerate(tapa_table()[clue].tolist()):
        bits = [bool(number >> bit & 1) for bit in range(8)]
        outside = any(bit and not cell for bit, cell in zip(bits, on_board, strict=True))
        if not fits and not outside:
            pairs = zip(bits, on_board, strict=True)
            signs.append(tuple(-1 if bit else 1 for bit, cell in pairs if cell))
    return signs


def _shakashaka(
    formula: _Formula,
    clues: dict[Cell, int],
    height: int,
    width: int,
    optional: Collection[Cell] = (),
) -> Marks:
    quarters = _shakashaka_board(formula, height, width)
    formula.switches = {cell: formula.variable() for cell in optional}
    triangles = {}
    for cell, lits in quarters.items():
        top, right, bottom, left = lits
        if clues[cell] != NO_CLUE:
            formula.clauses += [[-lit] for lit in lits]
            continue
        # Not black; then two opposite quarters determine the shape.
        formula.clauses += [[top, bottom], [left, right]]
        triangles[cell] = formula.variable()
        formula.clauses += [[-triangles[cell], -top, -bottom], [triangles[cell], top]]
        formula.clauses.append([triangles[cell], bottom])
    formula.clauses.append(list(triangles.values()))
    for cell, clue in clues.items():
        if clue >= 0:
            around = _beside(cell, height, width)
            with formula.clue(cell):
                formula.exactly(clue, [triangles[other] for other in around if other in triangles])
    symbols = STATES["shakashaka"]
    return {
        cell: {
            symbols[state]: [
                lit if white else -lit for lit, white in zip(lits, QUARTERS[state], strict=True)
            ]
            for state in range(1, len(symbols))
        }
        for cell, lits in quarters.items()
    }


def _shakashaka_board(formula: _Formula, height: int, width: int) -> dict[Cell, list[int]]:
    """Variables of the white quarters of each cell; they must be the first of the formula."""
    assert not formula.num_variables
    quarters, clauses = _rectangles(height, width)
    formula.num_variables = 4 * len(quarters)
    formula.clauses += clauses
    return quarters


@cache
def _rectangles(height: int, width: int) -> tuple[dict[Cell, list[int]], list[list[int]]]:
    """Variables of the quarters of each cell, and clauses that make white areas rectangles.

    As in `rules`: around each point of the grid, white eighths form runs of 2, 4 or all 8, and
    everything beyond the board is black.
    """
    quarters = {
        (row, column): [4 * (row * width + column) + quarter for quarter in (1, 2, 3, 4)]
        for row in range(height)
        for column in range(width)
    }
    clauses = []
    shapes = {tuple(shape) for shape in QUARTERS.tolist()}
    foreign = [s for s in itertools.product((False, True), repeat=4) if s not in shapes]
    for lits, shape in itertools.product(quarters.values(), foreign):
        clauses.append([-lit if white else lit for lit, white in zip(lits, shape, strict=True)])
    for row, column in itertools.product(range(height + 1), range(width + 1)):
        eighths = [
            quarters[row + down, column + right][quarter]
            if (row + down, column + right) in quarters
            else 0  # beyond the board
            for down, right, quarter in EIGHTHS
        ]
        for first, length in itertools.product(range(8), (1, 3, 5, 6, 7)):
            run = [eighths[(first + place) % 8] for place in range(length)]
            ends = {eighths[first - 1], eighths[(first + length) % 8]} - {0}
            if 0 not in run:
                clauses.append([-lit for lit in run] + list(ends))
    return quarters, clauses


def _forbid_squares(formula: _Formula, shaded: dict[Cell, int]) -> None:
    for row, column in shaded:
        square = [(row, column), (row, column + 1), (row + 1, column), (row + 1, column + 1)]
        if square[-1] in shaded:
            formula.clauses.append([-shaded[cell] for cell in square])


# Boards.


def _beside(cell: Cell, height: int | None = None, width: int | None = None) -> list[Cell]:
    """The cells orthogonally beside a cell, only those on the board if its size is given."""
    row, column = cell
    around = [(row - 1, column), (row, column + 1), (row + 1, column), (row, column - 1)]
    if height is None or width is None:
        return around
    return [(r, c) for r, c in around if 0 <= r < height and 0 <= c < width]


def _seen_from(cell: Cell, black: np.ndarray) -> list[Cell]:
    """The cells that a bulb lights, other than its own."""
    seen = []
    for down, right in ((-1, 0), (0, 1), (1, 0), (0, -1)):
        row, column = cell[0] + down, cell[1] + right
        while 0 <= row < black.shape[0] and 0 <= column < black.shape[1] and not black[row, column]:
            seen.append((row, column))
            row, column = row + down, column + right
    return seen


def _areas(cells: set[Cell]) -> list[set[Cell]]:
    """The parts of `cells` that are connected."""
    areas, left = [], set(cells)
    while left:
        area, front = set(), [left.pop()]
        while front:
            cell = front.pop()
            area.add(cell)
            fresh = [other for other in _beside(cell) if other in left]
            left.difference_update(fresh)
            front += fresh
        areas.append(area)
    return areas


def _holds(literal: int, true: set[int]) -> bool:
    return (abs(literal) in true) == (literal > 0)


def _rows(values: Iterable[Iterable[object]]) -> Rows:
    return tuple(tuple(str(symbol) for symbol in row) for row in values)


def _pysat() -> ModuleType:
    """The SAT library, imported when it is needed because it is optional."""
    try:
        import pysat.card
        import pysat.solvers
    except ImportError as error:
        raise ImportError(
            "solving and generating these puzzles needs the package python-sat, which is not "
            "installed; pip install python-sat"
        ) from error
    return pysat
