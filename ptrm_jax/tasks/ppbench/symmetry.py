"""Rotations, reflections and intermediate states: training examples from solved puzzles.

The paper (arXiv 2605.19943, A.3) makes ten examples of each training puzzle: the plain one, and
nine that start from a random intermediate state of the solution, turned at random, with the whole
solution as label. It does not say how the state is drawn; here the number of moves made is uniform.
"""

from functools import cache
from typing import Any

import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.tasks.ppbench.records import BOTTOM, LEFT, RIGHT, TOP, Record
from ptrm_jax.tasks.ppbench.vocabulary import (
    NUM_CELLS,
    SIDE,
    VOCABULARY,
    Symbol,
    encode_answer,
    encode_problem,
    encode_state,
)

NUM_IMAGES = 8

# Where a wall and the black corner of a triangle go when the board is turned a quarter
# anticlockwise, and when it is mirrored at its main diagonal.
_TURN_WALL = {TOP: LEFT, LEFT: BOTTOM, BOTTOM: RIGHT, RIGHT: TOP}
_TRANSPOSE_WALL = {TOP: LEFT, LEFT: TOP, BOTTOM: RIGHT, RIGHT: BOTTOM}
_TURN_TRIANGLE = {"5": "2", "2": "3", "3": "4", "4": "5"}
_TRANSPOSE_TRIANGLE = {"5": "5", "4": "2", "3": "3", "2": "4"}


@cache
def dihedral_cells(height: int, width: int) -> np.ndarray:
    """Which cell of the padded grid goes into each, by image: [8, 100] int64.

    ``tokens[..., dihedral_cells(height, width)[g]]`` moves the cells of image g, image 0 the grid
    itself: the board is transposed for g of 4 and more, then turned g % 4 quarters anticlockwise.
    An image stands at the top left again, so it may be `width` cells high, and pads stay pads.
    Move cells and rename tokens (`dihedral_tokens`) together, as `turn` does.
    """
    grid = np.arange(NUM_CELLS).reshape(SIDE, SIDE)
    board = grid[:height, :width]
    images = []
    for start in (board, board.T):
        for turns in range(4):
            image = np.rot90(start, turns)
            target = np.full((SIDE, SIDE), -1)
            target[: image.shape[0], : image.shape[1]] = image
            target[target < 0] = np.setdiff1d(grid, board)
            images.append(target.ravel())
    cells = np.stack(images)
    cells.flags.writeable = False  # one array serves every caller
    return cells


@cache
def dihedral_tokens() -> np.ndarray:
    """What each token becomes in each image, walls and triangles turned: [8, VOCAB_SIZE] int32."""
    token_of = {symbol: token for token, symbol in enumerate(VOCABULARY)}

    def renamed(walls: dict[int, int], triangles: dict[str, str]) -> np.ndarray:
        def rename(symbol: Symbol) -> Symbol:
            mask = sum(image for wall, image in walls.items() if symbol.walls & wall)
            state = symbol.state
            if symbol.pid == "shakashaka":
                state = triangles.get(state, state)
            return symbol._replace(state=state, walls=mask)

        return np.array([token_of[rename(symbol)] for symbol in VOCABULARY], np.int32)

    turned = renamed(_TURN_WALL, _TURN_TRIANGLE)
    transposed = renamed(_TRANSPOSE_WALL, _TRANSPOSE_TRIANGLE)
    images = []
    for tokens in (np.arange(len(VOCABULARY), dtype=np.int32), transposed):
        for _ in range(4):
            images.append(tokens)
            tokens = turned[tokens]
    tokens = np.stack(images)
    tokens.flags.writeable = False  # one array serves every caller
    return tokens


def turn(tokens: Any, image: int, *, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """One of the eight images of puzzles or answers: [..., 100] int32.

    Puzzles and answers turned alike fit each other as before. The number of a room of heyawake
    moves with its cell.

    Args:
        tokens: [..., 100] integer, valid tokens.
        image: 0 to 7; see `dihedral_cells`.
        height: rows of the boards, before.
        width: columns of the boards, before.
    """
    cells = dihedral_cells(height, width)[image]
    return dihedral_tokens()[image][np.asarray(tokens)[..., cells]]


def training_examples(
    record: Record, rng: np.random.Generator, count: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """The plain puzzle and count - 1 augmented ones: inputs, labels, [count, 100] int32 each.

    Each augmented example has the first n moves made, n uniform from 0 to one less than all, and is
    then turned, inputs and labels alike, into one of the eight images, uniformly. Where the moves
    are not known, the cells are decided in random order, drawn anew for each example.

    Args:
        record: a solved puzzle.
        rng: source of randomness.
        count: examples, at least 1; the paper has 10.

    Raises:
        VocabularyError: as `vocabulary.encode_problem`.
        ValueError: the puzzle has no answer, or `count` is below 1.
    """
    if count < 1:
        raise InputError(f"count must be at least 1, the plain puzzle; count is {count}; pass more")
    label = encode_answer(record)
    inputs, labels = [encode_problem(record)], [label]
    moves = record.moves or tuple(
        (cell, record.answer[cell // record.width][cell % record.width])
        for cell in record.open_cells
    )
    for _ in range(count - 1):
        order = np.arange(len(moves)) if record.moves else rng.permutation(len(moves))
        made = order[: rng.integers(len(moves))] if len(moves) else order
        state = encode_state(record, dict(moves[index] for index in made))
        image = int(rng.integers(NUM_IMAGES))
        size = {"height": record.height, "width": record.width}
        inputs.append(turn(state, image, **size))
        labels.append(turn(label, image, **size))
    return np.stack(inputs), np.stack(labels)
