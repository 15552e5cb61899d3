"""Sudoku of 4x4, 6x6 and 9x9 cells.

`boards` has the tokens and the geometry, `text` reads and draws boards, `rules` checks answers,
`generator` solves puzzles and makes new ones, `symmetry` has canonical forms and the training
augmentation, `task` the files and the `Task`. numba compiles `kernels`, which is imported when
something is first solved, generated or made canonical. `augment` runs on the device, all else on
the host.
"""

from ptrm_jax.tasks.sudoku.boards import (
    BLANK as BLANK,
    FIRST_DIGIT as FIRST_DIGIT,
    PAD as PAD,
    Board as Board,
    board_for as board_for,
)
from ptrm_jax.tasks.sudoku.generator import (
    count_solutions as count_solutions,
    generate as generate,
    solve_exact as solve_exact,
)
from ptrm_jax.tasks.sudoku.rules import (
    check_clues as check_clues,
    satisfies_rules as satisfies_rules,
)
from ptrm_jax.tasks.sudoku.symmetry import (
    augment as augment,
    canonical as canonical,
    in_test_split as in_test_split,
    puzzle_keys as puzzle_keys,
)
from ptrm_jax.tasks.sudoku.task import TASK as TASK, read_csv as read_csv, write_csv as write_csv
from ptrm_jax.tasks.sudoku.text import decode as decode, draw as draw, encode as encode
