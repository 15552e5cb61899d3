"""9x9 Sudoku, 523 thousand parameters.

    python experiments/train.py sudoku9

Two cores of an AMD EPYC: 1.4 steps per second. With `--data generate:sudoku9:100000 train.csv`, the
training rows of Sudoku-Extreme, the first 128 bundled puzzles at D = 16 after 1,000 steps:
13 % deterministic; 2,000: 56 %; 2,800 (35 minutes): 80 %, and 91 % by best-Q@8. The bundled model
was trained for 2,600 more steps with a decaying learning rate; its card has the commands.
"""

from ptrm_jax.training.presets import small

CONFIG = small(
    data=("generate:sudoku9:100000",),
    evaluation="sudoku9",
    task="sudoku",
    extra_clues=8,
    variant="mlp_t",
    seq_len=81,
    vocab_size=11,
    hidden_size=128,
    steps=20000,
    learning_rate=1e-3,
    micro_batch=4,
    eval_every=1000,
)
