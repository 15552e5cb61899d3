"""Sudoku: text, rules, solver, generator, canonical forms, files and the bundled puzzles."""

import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from pysat.solvers import Glucose4

from ptrm_jax.errors import InputError
from ptrm_jax.tasks import sudoku
from ptrm_jax.tasks.sudoku import BLANK, PAD, generator, kernels

SIZES = (4, 6, 9)
BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}  # rows, columns of a box

# Solved by hand; none comes from the module under test.
SOLVED = {
    4: "1234 3412 2143 4321",
    6: "123456 456123 231564 564231 312645 645312",
    9: """534678912 672195348 198342567 859761423 426853791 713924856 961537284 287419635
          345286179""",
}
PUZZLE = """
    5 3 . | . 7 . | . . .
    6 . . | 1 9 5 | . . .
    . 9 8 | . . . | . 6 .
    ------+-------+------
    8 . . | . 6 . | . . 3
    4 . . | 8 . 3 | . . 1
    7 . . | . 2 . | . . 6
    ------+-------+------
    . 6 . | . . . | 2 8 .
    . . . | 4 1 9 | . . 5
    . . . | . 8 . | . 7 9
"""
# No two clues contradict, yet there is no solution; a search that branches on cells alone needs
# minutes to see it.
NO_SOLUTION = (
    ".....5.8. ...6.1.43 ......... .1.5..... ...1.6... 3.......5 53.....61 ........4 ........."
)
BUNDLED = Path(sudoku.__file__).parents[2] / "assets" / "puzzles"


def solved(size: int) -> np.ndarray:
    return sudoku.encode(SOLVED[size])


def blanked(tokens: np.ndarray, *cells: int) -> np.ndarray:
    tokens = tokens.copy()
    tokens[list(cells)] = BLANK
    return tokens


def only_clues(size: int, **clues: int) -> np.ndarray:
    """An empty board with digits at cells named r1c1."""
    tokens = np.full(size**2, BLANK)
    for name, digit in clues.items():
        row, column = name[1:].split("c")
        tokens[(int(row) - 1) * size + int(column) - 1] = digit + 1
    return tokens


@pytest.fixture(scope="module", params=SIZES)
def generated(request) -> tuple[int, np.ndarray, np.ndarray]:
    return request.param, *sudoku.generate(request.param, 12, seed=5)


# Boards


@pytest.mark.parametrize("size", SIZES)
def test_units_are_the_rows_columns_and_boxes(size):
    board = sudoku.board_for(size**2)
    box_rows, box_cols = BOXES[size]
    assert (board.size, board.box_rows, board.box_cols) == (size, box_rows, box_cols)
    assert (board.num_cells, board.vocab_size) == (size**2, size + 2)
    row, column = np.divmod(np.arange(size**2), size)
    box = row // box_rows * (size // box_cols) + column // box_cols
    expected = [np.flatnonzero(of == unit) for of in (row, column, box) for unit in range(size)]
    np.testing.assert_array_equal(board.units, expected)
    assert sudoku.board_for(size**2).units is board.units
    with pytest.raises(ValueError, match="read-only"):
        board.units[0, 0] = 1


def test_board_errors():
    with pytest.raises(InputError, match=r"16 \(4x4\), 36 \(6x6\) or 81 \(9x9\).*\(80\)"):
        sudoku.board_for(80)
    with pytest.raises(InputError, match=r"2 x 2.*size \(6\)"):
        sudoku.Board(6, 2, 2)


# Text


def test_encode_gives_upstream_tokens():
    tokens = sudoku.encode("12_4 .0.. 4..1 ....")
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [2, 3, 1, 5, 1, 1, 1, 1, 5, 1, 1, 2, 1, 1, 1, 1]
    line = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
    assert sudoku.decode(sudoku.encode(PUZZLE)) == line


@given(st.sampled_from(SIZES), st.randoms())
def test_encode_inverts_decode_and_draw(size, rng):
    tokens = [rng.randrange(1, size + 2) for _ in range(size**2)]
    for text in (sudoku.decode(tokens), sudoku.draw(tokens)):
        assert sudoku.encode(text).tolist() == tokens


def test_decode_marks_foreign_tokens():
    tokens = [2, 5, BLANK, PAD, 6, -1, 99, 3, 2, 3, 4, 5, 2, 3, 4, 5]
    assert sudoku.decode(tokens) == "14.????212341234"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1234\n34x2\n2143\n4321", r"'x' at line 2, column 3"),
        ("1234 3412 2143 432\x02", r"'\\x02' at column 19"),
        ("1234 3412 2143 432\u0663", "'\u0663' at column 19"),
        ("1234 3412 2143 432", r"text has 15;"),
        ("." * 82, r"text has 82;"),
        ("", r"text has 0;"),
        ("1234 3412 2145 4321", r"digits must be 1 to 4 .* text has 5 in r3c4;"),
        ("." * 35 + "7", r"digits must be 1 to 6 .* text has 7 in r6c6;"),
    ],
)
def test_encode_errors(text, message):
    with pytest.raises(InputError, match=message):
        sudoku.encode(text)


def test_draw_marks_boxes_clues_and_changed_clues():
    answer = solved(6)
    clues = blanked(answer, *range(2, 36))
    answer[1] = 7  # the clue 2 in r1c2, answered 6
    assert sudoku.draw(answer, clues=clues).splitlines()[:5] == [
        "+---------+---------+",
        "|[1]!6! 3 | 4  5  6 |",
        "| 4  5  6 | 1  2  3 |",
        "+---------+---------+",
        "| 2  3  1 | 5  6  4 |",
    ]
    with pytest.raises(InputError, match="clues has 16 cells and tokens 36"):
        sudoku.draw(answer, clues=solved(4))
    lines = sudoku.draw(clues).splitlines()
    assert len(lines) == 6 + 4 and lines[1] == "| 1  2  . | .  .  . |" and lines[-1] == lines[0]


# Rules


@pytest.mark.parametrize("size", SIZES)
def test_every_change_of_one_cell_breaks_the_rules(size):
    grid = solved(size)
    cells, digits = size**2, np.arange(PAD, size + 4)
    changed = np.tile(grid, (cells, len(digits), 1))  # every token in every cell
    changed[np.arange(cells), :, np.arange(cells)] = digits
    empty = np.full(cells, BLANK)
    expected = digits == grid[:, None]  # right only where the token is the one that was there
    np.testing.assert_array_equal(sudoku.satisfies_rules(changed, empty), expected)


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("1234 1234 2143 2143", "columns and boxes"),
        ("1133 1133 2244 2244", "all"),
        ("1234 2341 3412 4123", "boxes"),
        ("1212 3434 1212 3434", "rows and columns"),
    ],
)
def test_each_kind_of_unit_counts(text, broken):
    assert not sudoku.satisfies_rules(sudoku.encode(text), np.full(16, BLANK)), broken


@pytest.mark.parametrize("size", SIZES)
def test_a_solved_grid_must_keep_its_clues(size):
    grid = solved(size)
    swapped = np.where(np.isin(grid, (2, 3)), 5 - grid, grid)  # a valid grid, 1 and 2 exchanged
    for cell in range(size**2):
        clue = blanked(grid, *set(range(size**2)) - {cell})
        assert sudoku.satisfies_rules(grid, clue)
        assert sudoku.satisfies_rules(swapped, clue) == (grid[cell] > 3)


def test_rules_broadcast_over_leading_axes():
    puzzles = np.stack([blanked(solved(4), 0, 1), blanked(solved(4), *range(16))])  # B = 2
    relabelled = solved(4)[np.newaxis] % 4 + 2  # a valid grid without one clue of the first puzzle
    answers = np.stack([solved(4), *relabelled, np.zeros(16, int)])  # K = 3
    answers = np.broadcast_to(answers, (2, 3, 16))
    expected = [[True, False, False], [True, True, False]]
    assert sudoku.satisfies_rules(answers, puzzles[:, None]).tolist() == expected
    assert sudoku.satisfies_rules(answers[0], np.full(16, PAD)).tolist() == [True, True, False]
    assert sudoku.satisfies_rules(answers[0, 0], puzzles[0]).shape == ()
    assert sudoku.satisfies_rules(answers[:0], puzzles[0]).shape == (0, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64])
def test_rules_take_any_integer_type(dtype):
    answers = np.stack([solved(9), solved(9)]).astype(dtype)
    answers[1, 40] = PAD
    inputs = sudoku.encode(PUZZLE).astype(dtype)
    assert sudoku.satisfies_rules(answers, inputs).tolist() == [True, False]
    # Tokens beyond the range of small integers are no digits.
    for offset in (2**8, 2**16, 2**32, -(2**16)):
        assert not sudoku.satisfies_rules(solved(9).astype(np.int64) + offset, np.full(81, BLANK))


@pytest.mark.parametrize(
    ("answers", "inputs", "message"),
    [
        (
            np.ones((2, 16), int),
            np.ones((3, 16), int),
            r"\(3, 16\) and answers \(2, 16\).*inputs\[",
        ),
        (np.ones(16), np.ones(16, int), r"answers must be .* float64"),
        (np.ones((2, 17), int), np.ones((2, 17), int), r"num_cells \(17\)"),
    ],
)
def test_rules_errors(answers, inputs, message):
    with pytest.raises(InputError, match=message):
        sudoku.satisfies_rules(answers, inputs)


# Clues and solutions


@pytest.mark.parametrize(
    ("clues", "message"),
    [
        ({"r2c1": 7, "r2c9": 7}, r"within a row; tokens has 7 in r2c1 and in r2c9;"),
        ({"r1c5": 4, "r8c5": 4}, r"within a column; tokens has 4 in r1c5 and in r8c5;"),
        ({"r7c8": 1, "r9c7": 1}, r"within a box; tokens has 1 in r7c8 and in r9c7;"),
    ],
)
def test_check_clues_names_the_contradiction(clues, message):
    tokens = only_clues(9, **clues)
    with pytest.raises(InputError, match=message):
        sudoku.check_clues(tokens)
    assert sudoku.count_solutions(tokens) == 0


@pytest.mark.parametrize("call", [sudoku.check_clues, sudoku.count_solutions, sudoku.solve_exact])
def test_puzzles_must_hold_blanks_and_digits(call):
    for token in (PAD, 6, -1):
        tokens = blanked(solved(4), 0)
        tokens[6] = token
        with pytest.raises(InputError, match=rf"tokens has {token} in r2c3; .* d \+ 1"):
            call(tokens)
    with pytest.raises(InputError, match=r"one board .* shape \(1, 16\)"):
        call(solved(4)[None])


def test_count_solutions():
    for tokens in (sudoku.encode(PUZZLE), sudoku.encode(NO_SOLUTION), np.ones(36, int), solved(6)):
        sudoku.check_clues(tokens)  # no two clues contradict
    assert sudoku.count_solutions(sudoku.encode(PUZZLE)) == 1
    assert sudoku.count_solutions(sudoku.encode(NO_SOLUTION)) == 0
    # 1 and 3 of two rows within one band can be exchanged in columns 1 and 3.
    two = blanked(sudoku.encode("1234 3412 2143 4321"), 0, 2, 4, 6)
    assert sudoku.count_solutions(two, limit=100) == 2
    empty = np.full(16, BLANK)
    assert sudoku.count_solutions(empty) == 2
    assert sudoku.count_solutions(empty, limit=10_000) == 288  # the number of 4x4 grids
    one_box = sudoku.encode("12.. 34.. .... ....")
    assert sudoku.count_solutions(one_box, limit=10_000) == 288 // 24
    with pytest.raises(InputError, match="limit is 0"):
        sudoku.count_solutions(empty, limit=0)


def test_solve_exact():
    solution = sudoku.solve_exact(sudoku.encode(PUZZLE))
    assert solution.dtype == np.int32
    np.testing.assert_array_equal(solution, solved(9))
    assert sudoku.solve_exact(sudoku.encode(NO_SOLUTION)) is None
    many = only_clues(6, r3c3=5)
    assert sudoku.satisfies_rules(sudoku.solve_exact(many), many)


def sat_clauses(size: int) -> list[list[int]]:
    """The rules in conjunctive normal form, written without the module's units.

    Variable 1 + size * cell + (digit - 1) says that the digit stands in the cell.
    """
    box_rows, box_cols = BOXES[size]
    clauses = []
    cells = list(itertools.product(range(size), repeat=2))
    for row, col in cells:
        clauses.append([1 + size * (size * row + col) + digit for digit in range(size)])
    for (row, col), (row2, col2) in itertools.combinations(cells, 2):
        same_box = row // box_rows == row2 // box_rows and col // box_cols == col2 // box_cols
        if row == row2 or col == col2 or same_box:
            one, two = 1 + size * (size * row + col), 1 + size * (size * row2 + col2)
            clauses += [[-one - digit, -two - digit] for digit in range(size)]
    for row, col in cells:
        for one, two in itertools.combinations(range(size), 2):
            base = 1 + size * (size * row + col)
            clauses.append([-base - one, -base - two])
    return clauses


@pytest.mark.parametrize("size", SIZES)
def test_solutions_are_counted_as_by_sat(size):
    """Puzzles from none to a few dozen solutions: minimal ones with clues removed or changed."""
    rng = np.random.default_rng(size)
    counts = []
    for puzzle in sudoku.generate(size, 12 if size == 9 else 30, seed=8)[0]:
        clues = rng.permutation(np.flatnonzero(puzzle > BLANK))
        tokens = blanked(puzzle, *clues[: rng.integers(3)])
        if rng.integers(3) == 0:
            tokens[clues[-1]] = rng.integers(2, size + 2)
        with Glucose4(bootstrap_with=sat_clauses(size)) as solver:
            for cell in np.flatnonzero(tokens > BLANK).tolist():
                solver.add_clause([1 + size * cell + int(tokens[cell]) - 2])
            models = itertools.islice(solver.enum_models(), 40)
            counts.append(sum(1 for _ in models))
        assert sudoku.count_solutions(tokens, limit=40) == counts[-1]
        solution = sudoku.solve_exact(tokens)
        assert (solution is None) == (counts[-1] == 0)
        assert solution is None or sudoku.satisfies_rules(solution, tokens)
    assert {0, 1} < set(counts)


# Generator


def assert_minimal(puzzle: np.ndarray) -> None:
    assert sudoku.count_solutions(puzzle) == 1
    needless = [
        cell
        for cell in np.flatnonzero(puzzle > BLANK)
        if sudoku.count_solutions(blanked(puzzle, cell)) == 1
    ]
    assert needless == []


def test_generated_puzzles_are_minimal_and_depend_on_seed_and_index_only(generated):
    size, inputs, labels = generated
    assert inputs.shape == labels.shape == (12, size**2)
    assert inputs.dtype == labels.dtype == np.int32
    assert sudoku.satisfies_rules(labels, inputs).all()
    for puzzle in inputs:
        assert_minimal(puzzle)
    for count in (0, 1, 7):
        shorter = sudoku.generate(size, count, seed=5)
        np.testing.assert_array_equal(shorter, (inputs[:count], labels[:count]))
    assert (sudoku.generate(size, 1, seed=6)[0] != inputs[:1]).any()


def test_workers_do_not_change_the_puzzles(monkeypatch):
    same = sudoku.generate(6, 40, seed=5, split="train")
    monkeypatch.setattr(generator, "_CHUNK", 7)
    made = sudoku.generate(6, 40, seed=5, split="train", workers=3)
    np.testing.assert_array_equal(made, same)


@pytest.mark.parametrize(
    ("size", "split", "extra", "digest"),
    [
        (4, None, 2, "823c15f3479c6322"),
        (6, "train", 0, "053f716df474e86c"),
        (9, None, 0, "17cfae4e0f87ab27"),
        (9, "test", 5, "44f1f54c35bb05f1"),
    ],
)
def test_the_stream_is_pinned(size, split, extra, digest):
    """Runs repeat over versions and machines: results are reported by seed."""
    boards = np.concatenate(sudoku.generate(size, 20, seed=7, split=split, extra_clues=extra))
    assert hashlib.sha256(boards.astype(np.uint8).tobytes()).hexdigest()[:16] == digest


def test_full_grids_are_well_mixed():
    """More than relabellings of one pattern: all 4x4 grids occur, about equally often."""
    count = 2880
    _, occurrences = np.unique(sudoku.generate(4, count, seed=0)[1], axis=0, return_counts=True)
    assert len(occurrences) == 288
    assert occurrences.max() < 3 * count / 288


def test_no_puzzle_occurs_twice_even_where_draws_collide(monkeypatch):
    inputs, _ = sudoku.generate(4, 1500, seed=0, extra_clues=8)
    assert len(np.unique(inputs, axis=0)) == 1500
    np.testing.assert_array_equal(sudoku.generate(4, 1490, seed=0, extra_clues=8)[0], inputs[:1490])
    monkeypatch.setattr(generator, "_MAX_REDRAWS", 1)
    with pytest.raises(InputError, match=r"count is 1500, and 1 draws of puzzle \d+ gave earlier"):
        sudoku.generate(4, 1500, seed=0, extra_clues=8)


@pytest.mark.parametrize("extra", [1, 5, 18])
def test_extra_clues_are_added_to_the_minimal_puzzle(extra):
    minimal, labels = sudoku.generate(6, 5, seed=3)
    easier, same = sudoku.generate(6, 5, seed=3, extra_clues=extra)
    np.testing.assert_array_equal(same, labels)
    assert sudoku.satisfies_rules(labels, easier).all()
    np.testing.assert_array_equal(easier[minimal > BLANK], minimal[minimal > BLANK])
    shown = (easier > BLANK).sum(axis=1) - (minimal > BLANK).sum(axis=1)
    assert shown.tolist() == [extra] * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 5}, "size is 5"),
        ({"size": -4}, "size is -4"),
        ({"count": -1}, "count is -1"),
        ({"seed": -1}, "seed -1"),
        ({"extra_clues": -1}, "extra_clues -1"),
        ({"extra_clues": 9}, "extra_clues 0 to 8 on a 4x4 board; .* extra_clues 9"),
        ({"split": "valid"}, "split is 'valid'"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_generate_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        sudoku.generate(**{"size": 4, "count": 1, "seed": 0} | arguments)


# Canonical forms and splits


def line_order(rng: np.random.Generator, block: int, num_lines: int) -> np.ndarray:
    """A random order of rows or columns that keeps blocks of them together."""
    blocks = rng.permutation(num_lines // block)
    return np.concatenate([start * block + rng.permutation(block) for start in blocks])


def transform(
    rng: np.random.Generator, *boards: np.ndarray, kinds: str = "dhvt"
) -> list[np.ndarray]:
    """The boards under one random symmetry: digits, horizontal, vertical lines, transposition."""
    size = int(len(boards[0]) ** 0.5)
    box_rows, box_cols = BOXES[size]
    rows, columns = np.arange(size), np.arange(size)
    tokens = np.arange(size + 2)
    if "d" in kinds:
        tokens[2:] = rng.permutation(tokens[2:])
    if "h" in kinds:
        rows = line_order(rng, box_rows, size)
    if "v" in kinds:
        columns = line_order(rng, box_cols, size)
    images = [tokens[board].reshape(size, size)[rows][:, columns] for board in boards]
    if "t" in kinds and box_rows == box_cols and ("dhv" not in kinds or rng.integers(2)):
        images = [image.T for image in images]
    return [image.ravel() for image in images]


def least_4x4(puzzle: np.ndarray, solution: np.ndarray) -> list[int]:
    """The canonical form by its definition: the least of all images."""
    lines = [[*a, *b] for a in ((0, 1), (1, 0)) for b in ((2, 3), (3, 2))]
    lines += [[*order[2:], *order[:2]] for order in lines]
    images = []
    for rows, columns, transposed in itertools.product(lines, lines, (False, True)):
        boards = [board.reshape(4, 4)[rows][:, columns] for board in (solution, puzzle)]
        grid, clues = (board.T.ravel() if transposed else board.ravel() for board in boards)
        name = {digit: k + 1 for k, digit in enumerate(grid[:4].tolist())}
        images.append([name[digit] for digit in grid.tolist()] + (clues > BLANK).tolist())
    return min(images)


def test_canonical_forms_of_4x4_are_least():
    inputs, labels = sudoku.generate(4, 15, seed=2, extra_clues=1)
    forms = sudoku.canonical(inputs, labels)
    assert forms.dtype == np.uint8
    assert forms.tolist() == [least_4x4(*boards) for boards in zip(inputs, labels, strict=True)]


@pytest.mark.parametrize("kinds", ["d", "h", "v", "t", "dhvt"])
@pytest.mark.parametrize("size", SIZES)
def test_symmetries_keep_the_canonical_form(size, kinds):
    rng = np.random.default_rng(3)
    inputs, labels = sudoku.generate(size, 60, seed=4)
    images = [transform(rng, *boards, kinds=kinds) for boards in zip(inputs, labels, strict=True)]
    moved, moved_labels = np.array(images).swapaxes(0, 1)
    if (size, kinds) != (6, "t"):
        assert (moved != inputs).any(axis=1).mean() > 0.5, "too few of the images are others"
    forms = sudoku.canonical(inputs, labels)
    np.testing.assert_array_equal(sudoku.canonical(moved, moved_labels), forms)
    keys = sudoku.puzzle_keys(inputs, labels)
    assert keys.dtype == np.uint64
    np.testing.assert_array_equal(sudoku.puzzle_keys(moved, moved_labels), keys)
    assert len(np.unique(keys)) == len(np.unique(forms, axis=0))
    members = sudoku.in_test_split(inputs, labels)
    np.testing.assert_array_equal(sudoku.in_test_split(moved, moved_labels), members)


def test_a_canonical_form_belongs_to_its_own_class():
    inputs, labels = sudoku.generate(9, 20, seed=4)
    forms = sudoku.canonical(inputs, labels)
    solutions = forms[:, :81] + 1
    puzzles = np.where(forms[:, 81:], solutions, BLANK)
    assert all(sudoku.count_solutions(puzzle) == 1 for puzzle in puzzles)
    np.testing.assert_array_equal(sudoku.canonical(puzzles, solutions), forms)


def test_boards_with_many_symmetries():
    """Each row the one above, moved: many transformations of the solution give the least one."""
    rng = np.random.default_rng(0)
    grid = np.array([[(3 * r + r // 3 + c) % 9 + 2 for c in range(9)] for r in range(9)]).ravel()
    puzzles = np.where(rng.random((30, 81)) < 0.4, grid, BLANK)
    forms = sudoku.canonical(puzzles, np.tile(grid, (30, 1)))
    assert len(np.unique(forms, axis=0)) == 30
    for puzzle, form in zip(puzzles, forms, strict=True):
        moved, solution = transform(rng, puzzle, grid)
        np.testing.assert_array_equal(sudoku.canonical(moved[None], solution[None])[0], form)


def test_transposition_is_no_symmetry_of_oblong_boxes():
    grid = solved(6)
    transposed = grid.reshape(6, 6).T.ravel()
    assert not sudoku.satisfies_rules(transposed, transposed)
    with pytest.raises(InputError, match="row 0: an answer must"):
        sudoku.canonical(transposed[None], transposed[None])


@pytest.mark.parametrize(("size", "classes"), [(4, 2), (6, 49)])
def test_number_of_classes_of_solutions(size, classes):
    """As counted by others for all 288 and 28,200,960 boards; no form is of two classes."""
    labels = sudoku.generate(size, 6000, seed=1)[1]
    assert len(np.unique(sudoku.canonical(labels, labels), axis=0)) == classes


def test_minimal_4x4_puzzles_have_36_classes():
    inputs, labels = sudoku.generate(4, 4000, seed=1)
    forms = np.unique(sudoku.canonical(inputs, labels), axis=0)
    assert np.unique(forms[:, 16:].sum(axis=1), return_counts=True)[1].tolist() == [13, 22, 1]


def test_every_clue_counts():
    """Puzzles of one solution that differ in one clue are not equivalent."""
    inputs, labels = sudoku.generate(9, 1, seed=9)
    clues = np.flatnonzero(inputs[0] > BLANK)
    fewer = np.stack([blanked(labels[0], cell) for cell in clues])
    forms = sudoku.canonical(fewer, np.tile(labels, (len(fewer), 1)))
    assert len(np.unique(forms, axis=0)) == len(clues)


@pytest.mark.parametrize("size", SIZES)
def test_train_and_test_never_share_a_class(size):
    keys: dict[str, set] = {"train": set(), "test": set()}
    for split, seed in itertools.product(keys, (0, 1)):
        inputs, labels = sudoku.generate(size, 200, seed=seed, split=split)
        assert (sudoku.in_test_split(inputs, labels) == (split == "test")).all()
        if size == 9:
            easier, same = sudoku.generate(size, 200, seed=seed, split=split, extra_clues=30)
            np.testing.assert_array_equal(same, labels)
            assert (sudoku.in_test_split(easier, labels) == (split == "test")).all()
            inputs = labels  # not even solutions are shared
        keys[split] |= set(map(bytes, sudoku.canonical(inputs, labels)))
        assert_minimal(sudoku.generate(size, 1, seed=seed, split=split)[0][0])
    assert keys["train"] and keys["test"] and not keys["train"] & keys["test"]


@pytest.mark.parametrize("size", [6, 9])
def test_one_class_in_eight_is_for_testing(size):
    inputs, labels = sudoku.generate(size, 1000, seed=3)
    assert abs(sudoku.in_test_split(inputs, labels).mean() - 1 / 8) < 0.042  # 4 sigma


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": solved(4)}, r"inputs has shape \(16,\) and labels \(1, 16\)"),
        ({"inputs": np.zeros((1, 16), int)}, r"inputs\[0\] has 0 in r1c1"),
        ({"labels": solved(4)[None] % 4 + 2}, "row 0: .* answer 3412"),
    ],
)
@pytest.mark.parametrize("call", [sudoku.canonical, sudoku.puzzle_keys, sudoku.in_test_split])
def test_canonical_errors(call, changes, message):
    with pytest.raises(InputError, match=message):
        call(**{"inputs": solved(4)[None], "labels": solved(4)[None]} | changes)


def test_canonical_of_nothing():
    empty = np.ones((0, 36), int)
    assert sudoku.canonical(empty, empty).shape == (0, 72)
    assert len(sudoku.puzzle_keys(empty, empty)) == len(sudoku.in_test_split(empty, empty)) == 0


# Compilation


def test_numba_is_imported_only_to_solve():
    code = "import sys, ptrm_jax.tasks.sudoku; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_functions_compile_where_nothing_can_be_cached():
    namespace: dict = {}
    exec(compile("def double(x): return 2 * x", "/nowhere/double.py", "exec"), namespace)
    assert kernels._compiled(namespace["double"])(21) == 42


# Files


def test_csv_files_are_read_as_written(tmp_path):
    inputs, labels = sudoku.generate(6, 4, seed=1)
    written = (inputs, labels, np.array([-1, 2.5, 0, 1e9]))
    sources = ["a", 'with "quotes", and commas', "", "é"]
    path = tmp_path / "p.csv"
    sudoku.write_csv(path, inputs, labels, sources, written[2])
    *read, read_sources = sudoku.read_csv(path)
    assert read_sources == sources
    for array, expected in zip(read, written, strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype

    sudoku.write_csv(path, blanked(solved(4), 0, 5)[None], solved(4)[None])
    assert path.read_bytes() == (
        b"source,question,answer,rating\n,.2343.1221434321,1234341221434321,-1\n"
    )
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))  # as Sudoku-Extreme has it
    inputs, _, ratings, sources = sudoku.read_csv(path)
    assert inputs[0].tolist() == blanked(solved(4), 0, 5).tolist()
    assert (ratings.tolist(), sources) == ([-1.0], [""])


HEADER = "source,question,answer,rating\n"
GOOD = "s,.2343412214343.1,1234341221434321,-1\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "must begin with the columns .* its header is ''"),
        (HEADER, 1, "at least one puzzle"),
        ("question,answer\n" + GOOD, 2, "must have 2 fields, as the first; it has 4"),
        ("question,reply\n" + GOOD, 1, "its header is 'question,reply'"),
        (GOOD, 1, "must begin with the columns"),
        (HEADER + GOOD + "s,....,1234\n", 3, "it has 3"),
        (HEADER + GOOD + "\n" + GOOD, 3, "it has 0"),
        (HEADER + GOOD.replace(".", "?"), 2, r"question: .*'\?' at column 1"),
        (HEADER + GOOD + GOOD.replace("1234341", "123434"), 3, "answer: .* text has 15"),
        (HEADER + GOOD.replace("1234341", "1235341"), 2, "answer: .* text has 5 in r1c4"),
        (HEADER + GOOD.replace("-1", "hard"), 2, "rating is 'hard'"),
        (HEADER + GOOD.replace("-1", "nan"), 2, "rating is 'nan'"),
        (HEADER + GOOD + f"s,{'.' * 36},{'.' * 36},-1\n", 3, "here 16 cells; question has 36"),
        (HEADER + GOOD.replace(",1234341221434321", "," + "." * 36), 2, "answer 36;"),
        (HEADER + GOOD + GOOD.replace(",1234", ",4231"), 3, "answer 4231341221434321 does not"),
        (HEADER + GOOD + GOOD.replace(",1234", ",.234"), 3, r"answer \.234341221434321 does not"),
        (HEADER + GOOD + GOOD.replace(".2", ".3") + GOOD, 3, "must keep the clues"),
        (HEADER + GOOD + '"s' + GOOD, 3, "must be CSV in UTF-8"),
        (HEADER + GOOD.replace("s,", "\xff,"), 1, "must be CSV in UTF-8"),
    ],
)
def test_read_csv_names_file_and_line(tmp_path, text, line, message):
    path = tmp_path / "p.csv"
    with pytest.raises(FileNotFoundError):
        sudoku.read_csv(path)
    path.write_text(HEADER + GOOD)
    assert len(sudoku.read_csv(path)[0]) == 1
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=rf"p\.csv:{line}: .*{message}"):
        sudoku.read_csv(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": solved(4)}, r"inputs has shape \(16,\)"),
        ({"inputs": np.ones((0, 16), int), "labels": np.ones((0, 16), int)}, "at least 1"),
        ({"labels": np.ones((1, 16), int)}, r"shape \(2, 16\) and labels \(1, 16\)"),
        ({"inputs": np.zeros((2, 16), int)}, r"inputs\[0\] has 0 in r1c1"),
        ({"labels": np.stack([solved(4), solved(4) % 4 + 2])}, "row 1: .* answer 3412"),
        ({"sources": ["a"]}, "2 puzzles, 1 sources"),
        ({"ratings": [1.0]}, r"ratings of shape \(1,\)"),
        ({"ratings": [1.0, np.inf]}, "row 1 has rating inf"),
    ],
)
def test_write_csv_errors_leave_no_file(tmp_path, changes, message):
    grids = np.stack([solved(4), solved(4)])
    arguments = {"inputs": blanked(grids[0], 3) + 0 * grids, "labels": grids} | changes
    with pytest.raises(InputError, match=message):
        sudoku.write_csv(tmp_path / "p.csv", **arguments)
    assert not (tmp_path / "p.csv").exists()


# Bundled puzzles


@pytest.fixture(scope="module", params=[6, 9])
def bundled(request) -> tuple[int, np.ndarray, np.ndarray]:
    return request.param, *sudoku.read_csv(BUNDLED / f"sudoku{request.param}.csv")[:2]


def test_bundled_puzzles_are_unique_by_sat(bundled):
    size, inputs, labels = bundled
    with Glucose4(bootstrap_with=sat_clauses(size)) as solver:
        for row in range(0, 512, 13):  # 40 of them
            literals = (1 + size * np.arange(size**2) + labels[row] - 2).tolist()
            clues = [x for x, token in zip(literals, inputs[row], strict=True) if token > BLANK]
            assert solver.solve(assumptions=clues), f"puzzle {row} has no solution"
            # The model is the label, and with the label forbidden there is none.
            assert set(literals) <= set(solver.get_model()), f"puzzle {row} has another solution"
            forbidden = size**3 + 1 + row
            solver.add_clause([-forbidden] + [-x for x in literals])
            assert not solver.solve(assumptions=[*clues, forbidden]), f"puzzle {row} is not unique"


def test_bundled_sets_are_what_generate_makes(bundled):
    size, inputs, labels = bundled
    assert inputs.shape == labels.shape == (512, size**2)
    assert len(np.unique(inputs, axis=0)) == 512
    for puzzle in inputs[::64]:
        assert_minimal(puzzle)
    again = sudoku.generate(size, 512, seed=2026, split="test")
    message = (
        "generate no longer makes the bundled puzzles; if it was changed on purpose, make the "
        "files anew and say so beside results measured on them"
    )
    np.testing.assert_array_equal(again, (inputs, labels), err_msg=message)
    assert sudoku.in_test_split(inputs, labels).all()
