r"""Six types of pencil puzzles, 4x4 to 6x6, 267 thousand parameters, by `mlp_t`.

    python experiments/pencil_data.py DIR --rounds 40
    python experiments/train.py pencil6 --data DIR/train --model.L-cycles 1 --halt-max-steps 1 \
        --learning-rate 2e-3 --min-learning-rate-ratio 1 --steps 4000 --output A
    python experiments/train.py pencil6 --data DIR/train --start-from A/model --halt-max-steps 1 \
        --min-learning-rate-ratio 1 --steps 1500 --seed 1 --output B
    python experiments/train.py pencil6 --data DIR/train --start-from B/model --halt-max-steps 4 \
        --min-learning-rate-ratio 1 --steps 1000 --seed 2 --output C
    python experiments/train.py pencil6 --data DIR/train --start-from C/model --seed 3 --output D

Cores of an AMD EPYC, beside other work: the data 50 minutes on two; the runs 18 on one, then 9, 6
and 29 on two. TRM at D = 16 solves 45.8 % [39.1, 52.6] of the first 192 bundled puzzles. The result
is bundled.

From shallow to deep, because the whole recursion learns slowly from random weights. A supervision
step that is the only one sees a new puzzle in every row of every batch; with halting a puzzle that
is not solved stays for all its steps. The card has what else was tried. PTRM's paper uses attention
for Pencil Puzzle Bench; of this size it learned more slowly here.
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
    optimizer="muon",
    loss="softmax",
    steps=6000,
    learning_rate=1e-3,
    min_learning_rate_ratio=0.05,
    halt_max_steps=12,
    halt_exploration_prob=0.4,
    micro_batch=8,
    eval_every=1500,
    eval_puzzles=192,
    eval_rollouts=4,
)
