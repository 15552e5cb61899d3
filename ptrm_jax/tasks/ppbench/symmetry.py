"""Rotations and reflections of boards: cells move, and walls and triangles turn."""

from functools import cache
from typing import Any

import numpy as np

from ptrm_jax.tasks.ppbench.puzzle import BOTTOM, LEFT, RIGHT, TOP
from ptrm_jax.tasks.ppbench.vocabulary import SIDE, Symbol, of_cells, of_side

NUM_IMAGES = 8
UPRIGHT = (0, 2, 5, 7)
"""The images that keep rows rows: the board, half a turn, two reflections."""

# The image of a wall and of the black corner of a triangle under a quarter turn anticlockwise, and
# under a transposition.
_TURN_WALL = {TOP: LEFT, LEFT: BOTTOM, BOTTOM: RIGHT, RIGHT: TOP}
_TRANSPOSE_WALL = {TOP: LEFT, LEFT: TOP, BOTTOM: RIGHT, RIGHT: BOTTOM}
_TURN_TRIANGLE = {"5": "2", "2": "3", "3": "4", "4": "5"}
_TRANSPOSE_TRIANGLE = {"5": "5", "4": "2", "3": "3", "2": "4"}


@cache
def dihedral_cells(height: int, width: int, side: int = SIDE) -> np.ndarray:
    """The source of each cell of the padded grid, for each image: [8, side x side] int64.

    ``tokens[..., dihedral_cells(height, width)[g]]`` moves the cells of image g; image 0 is the
    grid itself. The board is transposed if g >= 4, then turned by g % 4 quarters anticlockwise. An
    image is placed at the top left again, so it may be `width` cells high, and padding stays
    padding. Move cells and rename tokens (`dihedral_tokens`) together, as `turn` does.
    """
    grid = np.arange(side**2).reshape(side, side)
    board = grid[:height, :width]
    images = []
    for start in (board, board.T):
        for turns in range(4):
            image = np.rot90(start, turns)
            target = np.full((side, side), -1)
            target[: image.shape[0], : image.shape[1]] = image
            target[target < 0] = np.setdiff1d(grid, board)
            images.append(target.ravel())
    cells = np.stack(images)
    cells.flags.writeable = False  # callers share the array
    return cells


@cache
def dihedral_tokens(side: int = SIDE) -> np.ndarray:
    """The image of each token of a side, with walls and triangles turned: [8, V] int32."""
    vocabulary = of_side(side)

    def renamed(walls: dict[int, int], triangles: dict[str, str]) -> np.ndarray:
        def rename(symbol: Symbol) -> Symbol:
            mask = sum(image for wall, image in walls.items() if symbol.walls & wall)
            state = symbol.state
            if symbol.pid == "shakashaka":
                state = triangles.get(state, state)
            return symbol._replace(state=state, walls=mask)

        images = [vocabulary.token_of[rename(symbol)] for symbol in vocabulary.symbols]
        return np.array(images, np.int32)

    turned = renamed(_TURN_WALL, _TURN_TRIANGLE)
    transposed = renamed(_TRANSPOSE_WALL, _TRANSPOSE_TRIANGLE)
    images = []
    for start in (np.arange(vocabulary.size, dtype=np.int32), transposed):
        image = start
        for _ in range(4):
            images.append(image)
            image = turned[image]
    tokens = np.stack(images)
    tokens.flags.writeable = False  # callers share the array
    return tokens


def turn(
    tokens: Any, image: int, *, height: int | None = None, width: int | None = None
) -> np.ndarray:
    """One of the eight images of puzzles or answers: [..., S] int32.

    The image of an answer solves the same image of its puzzle. The number of a room of heyawake
    moves with its cell. Of a 6x6 sudoku, whose boxes are 2x3, only the images `UPRIGHT` are
    sudokus.

    Args:
      tokens: [..., S] integer, S = n x n, valid tokens.
      image: 0 to 7; see `dihedral_cells`.
      height: rows of the boards before the turn; by default n.
      width: columns of the boards before the turn; by default n.

    Raises:
      InputError: S is not a square.
    """
    tokens = np.asarray(tokens)
    side = of_cells(tokens.shape[-1]).side
    cells = dihedral_cells(height or side, width or side, side)[image]
    return dihedral_tokens(side)[image][tokens[..., cells]]
