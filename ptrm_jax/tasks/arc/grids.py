"""Grids of ARC-AGI and their tokens.

A grid is [h, w] int32, h and w in 1..30, colours 0..9; 0 is black. Its tokens are the S = 900 cells
of a page of 30x30, row by row: ``PAD`` 0, ``EOS`` 1 along the right and the lower edge of the grid
where there is room (not at the corner where the edges meet), colour c as c + 2.

Source: upstream TRM, commit e7b6871, ``dataset/build_arc_dataset.py``, ``evaluators/arc.py``.
"""

import numpy as np

PAD = 0
EOS = 1
FIRST_COLOR = 2
NUM_COLORS = 10
VOCAB_SIZE = FIRST_COLOR + NUM_COLORS
MAX_SIZE = 30
SEQ_LEN = MAX_SIZE * MAX_SIZE


def encode(grid: np.ndarray, row: int = 0, column: int = 0) -> np.ndarray:
    """Tokens of a grid: [900] int32.

    Args:
      grid: [h, w] integer, colours 0..9, h and w in 1..30; not checked.
      row: rows of padding above the grid, at most 30 - h.
      column: columns of padding to its left, at most 30 - w.
    """
    page = np.zeros((MAX_SIZE, MAX_SIZE), np.int32)  # PAD
    bottom, right = row + grid.shape[0], column + grid.shape[1]
    page[row:bottom, column:right] = grid + FIRST_COLOR
    # Slices one cell thick: they are empty where the grid ends at the edge of the page.
    page[bottom : bottom + 1, column:right] = EOS
    page[row:bottom, right : right + 1] = EOS
    return page.ravel()


def crop_sizes(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths of the grids at the upper left of pages: two [...] int32 arrays.

    As in upstream's evaluator, the grid is the largest rectangle of colours that begins at the
    upper left; ties go to the lowest height. Both sizes are 0 if the first token is not a colour.

    Args:
      tokens: [..., 900] integer; model outputs may hold any value.
    """
    pages = tokens.reshape(*tokens.shape[:-1], MAX_SIZE, MAX_SIZE)
    colored = (pages >= FIRST_COLOR) & (pages < VOCAB_SIZE)
    runs = np.where(colored.all(-1), MAX_SIZE, colored.argmin(-1))
    widths = np.minimum.accumulate(runs, axis=-1)  # of the rectangle down to each row
    areas = widths * np.arange(1, MAX_SIZE + 1)
    last = areas.argmax(-1)
    width = np.take_along_axis(widths, last[..., None], axis=-1)[..., 0]
    return np.where(width > 0, last + 1, 0).astype(np.int32), width.astype(np.int32)


def pack(grid: np.ndarray) -> bytes:
    """A grid as bytes: height, width, cells row by row; equal bytes mean equal grids."""
    return bytes(grid.shape) + grid.astype(np.uint8).tobytes()


def unpack(packed: bytes) -> np.ndarray:
    """The grid of `pack`: [h, w] int32."""
    cells = np.frombuffer(packed, np.uint8, offset=2)
    return cells.reshape(packed[0], packed[1]).astype(np.int32)
