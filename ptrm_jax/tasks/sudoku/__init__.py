"""Sudoku."""

from ptrm_jax.tasks.sudoku.boards import (
    BLANK as BLANK,
    FIRST_DIGIT as FIRST_DIGIT,
    PAD as PAD,
    TASK as TASK,
    Board as Board,
    augment as augment,
    board_for as board_for,
    canonical as canonical,
    check_clues as check_clues,
    count_solutions as count_solutions,
    decode as decode,
    draw as draw,
    encode as encode,
    generate as generate,
    in_test_split as in_test_split,
    puzzle_keys as puzzle_keys,
    read_csv as read_csv,
    satisfies_rules as satisfies_rules,
    solve_exact as solve_exact,
    write_csv as write_csv,
)
