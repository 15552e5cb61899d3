"""Sudoku-Extreme, attention with rotary positions.

    python experiments/train.py sudoku_extreme_attention --data DATA

DATA is the folder that upstream's `dataset/build_sudoku_dataset.py` writes (1,000 puzzles, 1,000
augmentations each). Upstream's own recipe at full size (README and `config/`, commit e7b6871): one
L40S, below 36 hours, 74.7 % in the TRM paper. We had no accelerator to train it: only three steps,
in batches of 4, were run at this size, on a CPU. `micro_batch` is for devices with 16 GiB or more;
the batch must be a multiple of devices x micro_batch.
"""

from ptrm_jax.training.presets import PUZZLES, upstream

CONFIG = upstream(
    data="data/sudoku-extreme-1k-aug-1000",
    variant="attention",
    seq_len=81,
    vocab_size=11,
    L_cycles=6,
    **PUZZLES,
)
