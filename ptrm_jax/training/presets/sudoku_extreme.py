"""Sudoku-Extreme, `mlp_t`: upstream's model of 5 million values.

    python experiments/train.py sudoku_extreme --data DATA

DATA is the folder that upstream's `dataset/build_sudoku_dataset.py` writes (1,000 puzzles,
1,000 augmentations each). Upstream's own recipe at full size (README and `config/`, commit
e7b6871): one L40S, below 36 hours, 87.4 % in the TRM paper. Here three steps were run at this
size on a CPU, in batches of 4, to see that they work; no accelerator was at hand to train it.
`micro_batch` is for devices with 16 GiB or more; the batch must be a multiple of devices x
micro_batch.
"""

from ptrm_jax.training.config import TrainConfig
from ptrm_jax.training.presets import architecture

CONFIG = TrainConfig(
    model=architecture(
        variant="mlp_t",
        positions="none",
        vocab_size=11,
        seq_len=81,
        hidden_size=512,
        num_heads=8,
        prefix_len=16,
        H_cycles=3,
        L_cycles=6,
        forward_dtype="bfloat16",
    ),
    data=("data/sudoku-extreme-1k-aug-1000",),
    steps=65_104,  # 50,000 epochs of 1,000 groups
    puzzle_emb_learning_rate=1e-4,
    weight_decay=1.0,
    puzzle_emb_weight_decay=1.0,
    compute_dtype="bfloat16",
    micro_batch=96,
    checkpoint_every=1000,
    eval_every=6_510,
)
