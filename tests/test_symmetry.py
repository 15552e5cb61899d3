"""Random symmetries and extra clues: what they keep, what they reach, and how often."""

import itertools
from functools import cache

import jax
import numpy as np
import pytest
from scipy.stats import chisquare

from ptrm_jax import read_dataset
from ptrm_jax.tasks import maze, ppbench, sudoku, symmetry
from ptrm_jax.tasks.sudoku import BLANK, FIRST_DIGIT

SIZES = (4, 6, 9)
BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}  # rows, columns of a box
NUM_DRAWS = 2**14  # one number, so that each function is compiled once
NUM_CELLS = 100  # of puzzles to show clues of, padded, for the same reason
KEYS = jax.random.split(jax.random.key(0), NUM_DRAWS)

sudoku_augment = cache(lambda size: sudoku.augment(size**2))
dihedral_augment = cache(symmetry.dihedral_augment)


@cache
def compiled(function):
    """`function` of a batch of keys, inputs and labels, and of arguments that all share."""

    def batch(keys, inputs, labels, *rest):
        return jax.vmap(lambda *one: function(*one, *rest))(keys, inputs, labels)

    return jax.jit(batch)


def draws(function, inputs, labels, *rest, keys=KEYS):
    """NUM_DRAWS results of `function` for one puzzle, or as many for each of several in turn."""
    inputs, labels = (
        np.resize(np.asarray(tokens, np.int32), (NUM_DRAWS, np.shape(tokens)[-1]))
        for tokens in (inputs, labels)
    )
    return jax.tree.map(np.asarray, compiled(function)(keys, inputs, labels, *rest))


def puzzles_of(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A few uniquely solvable puzzles and their solutions."""
    if size == 4:
        return sudoku.encode("1.3.34..2.4.4.21")[None], sudoku.encode("1234341221434321")[None]
    dataset = read_dataset(f"sudoku{size}").head(3)
    return dataset.puzzles.inputs, dataset.labels


def is_uniform(counts) -> bool:
    """Whether counts look drawn uniformly; draws are seeded, so that the verdict never changes."""
    return chisquare(counts).pvalue > 1e-3


# Sudoku


@pytest.mark.parametrize("size", SIZES)
def test_a_symmetry_maps_puzzles_and_their_solutions_to_such(size):
    puzzles, solutions = puzzles_of(size)
    inputs, labels = draws(sudoku_augment(size), puzzles, solutions)
    assert inputs.dtype == labels.dtype == np.int32
    assert sudoku.satisfies_rules(labels, inputs).all()
    blanks = (puzzles == BLANK).sum(-1)
    np.testing.assert_array_equal((inputs == BLANK).sum(-1), np.resize(blanks, NUM_DRAWS))
    assert all(sudoku.count_solutions(image) == 1 for image in inputs[:20])


@pytest.mark.parametrize("size", SIZES)
def test_pads_and_blanks_stay(size):
    pads, blanks = np.full(size**2, sudoku.PAD), np.full(size**2, BLANK)
    images = draws(sudoku_augment(size), pads, blanks)
    assert (images[0] == pads).all() and (images[1] == blanks).all()


def test_all_symmetries_of_the_4x4_board_are_equally_likely():
    """3072 = 8 orders of rows x 8 of columns x 2 transpositions x 24 orders of digits."""
    board = sudoku.encode("1123 4.12 .3.. 42.1").reshape(4, 4)  # its 3072 images are distinct
    orders = [p for p in itertools.permutations(range(4)) if {*p[:2]} in ({0, 1}, {2, 3})]
    digits = [[0, 1, *(d + FIRST_DIGIT for d in p)] for p in itertools.permutations(range(4))]
    group = {}
    for rows, columns, tokens in itertools.product(orders, orders, np.array(digits, np.int32)):
        image = tokens[board[np.ix_(rows, columns)]]
        group[image.tobytes()] = len(group)
        group[image.T.tobytes()] = len(group)
    assert len(group) == 3072
    drawn, _ = draws(sudoku_augment(4), board.ravel(), board.ravel())
    counts = np.zeros(3072, int)
    for image in drawn:
        counts[group[image.tobytes()]] += 1
    assert is_uniform(counts)


@pytest.mark.parametrize("size", (6, 9))
def test_a_pair_of_clues_goes_wherever_its_kind_may(size):
    """Two cells of one box and row stay so, or, where boxes are square, become of one column."""
    box_rows, box_cols = BOXES[size]
    puzzle = np.full(size**2, BLANK)
    puzzle[:2] = FIRST_DIGIT, FIRST_DIGIT + 1
    inputs, _ = draws(sudoku_augment(size), puzzle, puzzle)
    pairs = np.nonzero(inputs != BLANK)[1].reshape(NUM_DRAWS, 2)
    digits = np.take_along_axis(inputs, pairs, 1)

    cells = list(itertools.product(range(size), repeat=2))
    expected = set()
    for (r, c), (s, d) in itertools.combinations(cells, 2):
        one_box = (r // box_rows, c // box_cols) == (s // box_rows, d // box_cols)
        if one_box and (r == s or (c == d and size == 9)):
            expected.add((r * size + c, s * size + d))
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    assert set(map(tuple, found.tolist())) == expected
    assert is_uniform(counts)
    found, counts = np.unique(digits, axis=0, return_counts=True)
    assert len(found) == size * (size - 1)
    assert is_uniform(counts)


# Grids


@pytest.mark.parametrize(("height", "width", "order"), [(9, 9, 8), (5, 11, 4)])
def test_all_dihedral_images_are_equally_likely(height, width, order):
    cells = np.arange(height * width)
    inputs, labels = draws(dihedral_augment(height, width), cells, cells[::-1])
    np.testing.assert_array_equal(labels, height * width - 1 - inputs)
    found, counts = np.unique(inputs, axis=0, return_counts=True)
    assert len(found) == order
    assert is_uniform(counts)
    # Neighbours stay neighbours, which characterises the dihedral group.
    for image in found.reshape(-1, height, width):
        for axis in (0, 1):
            a, b = np.moveaxis(image, axis, 0)[1:], np.moveaxis(image, axis, 0)[:-1]
            assert (np.abs(a // width - b // width) + np.abs(a % width - b % width) == 1).all()


@pytest.mark.parametrize(("height", "width"), [(9, 9), (5, 11)])
def test_images_of_a_maze_with_one_shortest_path_have_the_right_label(height, width):
    inputs, labels = maze.generate(height, width, 4, seed=1, kind="braided")
    images, image_labels = draws(dihedral_augment(height, width), inputs, labels)
    np.testing.assert_array_equal(maze.label(images, width=width), image_labels)


# Extra clues


def padded(tokens) -> np.ndarray:
    return np.pad(tokens, (0, NUM_CELLS - len(tokens)))


@pytest.fixture(scope="module")
def puzzle() -> tuple[np.ndarray, np.ndarray]:
    inputs, labels = puzzles_of(6)
    return padded(inputs[0]), padded(labels[0])


def shown_cells(inputs, labels, max_extra: int) -> np.ndarray:
    """Where draws of extra clues differ from the puzzle: [NUM_DRAWS, S] bool."""
    shown = draws(symmetry.show_clues, inputs, labels, max_extra)
    assert shown.dtype == np.int32
    changed = shown != inputs
    np.testing.assert_array_equal(shown, np.where(changed, labels, inputs))
    return changed


@pytest.mark.parametrize("max_extra", [0, 1, 7])
def test_extra_clues_fill_as_many_blanks_as_drawn(puzzle, max_extra):
    changed = shown_cells(*puzzle, max_extra)
    assert not changed[:, puzzle[0] != BLANK].any()
    counts = np.bincount(changed.sum(-1))
    assert len(counts) == max_extra + 1
    assert max_extra == 0 or is_uniform(counts)
    # Of one per draw: cells of one draw are not independent, as the chi-square test needs.
    assert max_extra != 1 or is_uniform(changed.sum(0)[puzzle[0] == BLANK])


def test_all_blanks_are_shown_if_there_are_fewer(puzzle):
    inputs, labels = puzzle
    few = labels.copy()
    few[[3, 20]] = BLANK
    counts = np.bincount(shown_cells(few, labels, 9).sum(-1))
    assert len(counts) == 3
    assert chisquare(counts, NUM_DRAWS * np.array([0.1, 0.1, 0.8])).pvalue > 1e-3
    assert not shown_cells(labels, labels, 9).any()
    assert not shown_cells(labels, np.full_like(labels, sudoku.PAD), 9).any()
    most = shown_cells(inputs, labels, 10**6).sum(-1)
    assert (most == (inputs == BLANK).sum()).mean() > 0.99


def test_any_task_has_open_cells():
    """The path of a maze, the undecided cells of PPBench; never padding."""
    inputs, labels = (padded(boards[0]) for boards in maze.generate(5, 5, 1, 0))
    changed = shown_cells(inputs, labels, 30)
    assert changed.any(0).tolist() == (labels == maze.PATH).tolist()
    (inputs,), (labels,) = ppbench.TASK.generate(4, 1, seed=0, split="train", type="nurikabe")
    changed = shown_cells(inputs, labels, 40)
    assert changed.any(0).tolist() == (inputs != labels).tolist()
    shown = np.where(changed, labels, inputs)
    solved = (shown == labels).all(1)
    assert solved.any() and (ppbench.satisfies_rules(shown, inputs) == solved).all()


# Keys


@pytest.mark.parametrize("name", ["sudoku4", "sudoku6", "sudoku9", "dihedral", "show_clues"])
def test_a_draw_depends_on_its_key_and_puzzle_alone(name, puzzle):
    if name == "show_clues":
        function, boards, rest = symmetry.show_clues, puzzle, (5,)
    else:
        size = int(name[-1]) if name[-1].isdigit() else 9
        function = dihedral_augment(9, 9) if name == "dihedral" else sudoku_augment(size)
        boards, rest = [tokens[0] for tokens in puzzles_of(size)], ()
    one, reverse = draws(function, *boards, *rest), draws(function, *boards, *rest, keys=KEYS[::-1])
    for images, reversed_images in zip(*map(jax.tree.leaves, (one, reverse)), strict=True):
        assert len(np.unique(images[:20], axis=0)) > 1
        np.testing.assert_array_equal(images, reversed_images[::-1])
    # Every second puzzle is another one.
    others = [np.stack([tokens, tokens[::-1]]) for tokens in boards]
    mixed = draws(function, *others, *rest)
    for images, mixed_images in zip(*map(jax.tree.leaves, (one, mixed)), strict=True):
        np.testing.assert_array_equal(images[::2], mixed_images[::2])
