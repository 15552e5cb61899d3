r"""Six types of pencil puzzles, 4x4 to 6x6, by `mlp_t`.

    python experiments/pencil_data.py DIR --rounds 40
    python experiments/train.py pencil6 --data DIR/train

72 minutes on one busy core of an AMD EPYC, and not finished: after these 9,000 steps TRM at D = 16
solves 15.6 % [8.3, 22.9] of the first 96 bundled puzzles, and best-Q@4 the same (the run's own last
evaluation). The result is not bundled; a longer run is needed.

PTRM's paper uses attention for Pencil Puzzle Bench. Here, on 26 rounds, it stopped learning:

    python experiments/train.py pencil6 --data DIR/train --model.variant attention \
        --model.positions rope --model.mlp-t-width 0 --model.num-heads 4 --model.rope-theta 30 \
        --model.hidden-size 96 --model.puzzle-emb-ndim 96 --model.L-cycles 1 --batch-size 32 \
        --learning-rate 1e-3 --min-learning-rate-ratio 1 --halt-max-steps 8

solved 1.0 % [0.0, 3.1] at 3,000, 4,500 and 6,000 steps.
"""

from ptrm_jax.tasks.ppbench import of_side
from ptrm_jax.training.presets import small

CONFIG = small(
    data=("pencil6/train",),
    evaluation="pencil6",
    task="ppbench",
    variant="mlp_t",
    seq_len=36,
    vocab_size=of_side(6).size,
    hidden_size=80,
    H_cycles=1,
    batch_size=64,
    steps=9000,
    learning_rate=2e-3,
    min_learning_rate_ratio=0.05,
    halt_max_steps=12,
    micro_batch=8,
    eval_every=1500,
    eval_puzzles=96,
    eval_rollouts=4,
)
