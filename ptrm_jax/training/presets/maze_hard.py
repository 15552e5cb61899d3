"""Maze-Hard, 30x30 mazes, attention with rotary positions.

    python experiments/train.py maze_hard --data DATA

DATA is the folder that upstream's `dataset/build_maze_dataset.py` writes. Upstream's own recipe at
full size (README and `config/`, commit e7b6871): four L40S, below 24 hours, 85.3 % in the TRM
paper. We had no accelerator to train it: only three steps, in batches of 4, were run at this size,
on a CPU. `micro_batch` is for devices with 16 GiB or more; the batch must be a multiple of devices
x micro_batch.
"""

from ptrm_jax.training.presets import PUZZLES, upstream

CONFIG = upstream(
    data="data/maze-30x30-hard-1k",
    variant="attention",
    seq_len=900,
    vocab_size=6,
    L_cycles=4,
    **PUZZLES,
)
