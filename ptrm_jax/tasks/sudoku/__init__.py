"""Sudoku."""

from ptrm_jax.tasks.sudoku.boards import (
    BLANK as BLANK,
)
from ptrm_jax.tasks.sudoku.boards import (
    FIRST_DIGIT as FIRST_DIGIT,
)
from ptrm_jax.tasks.sudoku.boards import (
    PAD as PAD,
)
from ptrm_jax.tasks.sudoku.boards import (
    TASK as TASK,
)
from ptrm_jax.tasks.sudoku.boards import (
    Board as Board,
)
from ptrm_jax.tasks.sudoku.boards import (
    augment as augment,
)
from ptrm_jax.tasks.sudoku.boards import (
    board_for as board_for,
)
from ptrm_jax.tasks.sudoku.boards import (
    canonical as canonical,
)
from ptrm_jax.tasks.sudoku.boards import (
    check_clues as check_clues,
)
from ptrm_jax.tasks.sudoku.boards import (
    count_solutions as count_solutions,
)
from ptrm_jax.tasks.sudoku.boards import (
    decode as decode,
)
from ptrm_jax.tasks.sudoku.boards import (
    draw as draw,
)
from ptrm_jax.tasks.sudoku.boards import (
    encode as encode,
)
from ptrm_jax.tasks.sudoku.boards import (
    generate as generate,
)
from ptrm_jax.tasks.sudoku.boards import (
    in_test_split as in_test_split,
)
from ptrm_jax.tasks.sudoku.boards import (
    puzzle_keys as puzzle_keys,
)
from ptrm_jax.tasks.sudoku.boards import (
    read_csv as read_csv,
)
from ptrm_jax.tasks.sudoku.boards import (
    satisfies_rules as satisfies_rules,
)
from ptrm_jax.tasks.sudoku.boards import (
    solve_exact as solve_exact,
)
from ptrm_jax.tasks.sudoku.boards import (
    write_csv as write_csv,
)
