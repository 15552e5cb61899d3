r"""Six types of pencil puzzles, 4x4 to 6x6, 267 thousand parameters, by `mlp_t`.

    python experiments/pencil_data.py pencil6 --rounds 40 --num-test 560
    python experiments/train.py pencil6

Two cores of an AMD EPYC, beside other work: the data 50 minutes, the training 83. TRM at D = 16
solves 59.4 % [52.6, 66.1] of the first 192 bundled puzzles. The result is bundled.

In four stages, from shallow to deep, because the whole recursion learns slowly from random weights.
A supervision step that is the only one sees a new puzzle in every row of every batch; with halting
a puzzle that is not solved stays for all its steps. The card has what else was tried. PTRM's paper
uses attention for Pencil Puzzle Bench; of this size it learned more slowly here.
"""

from ptrm_jax.tasks.ppbench import of_side
from ptrm_jax.training.presets import small
from ptrm_jax.training.stages import Stage

STAGES = (
    Stage(steps=5000, learning_rate=2e-3, halt_max_steps=1, L_cycles=1),
    Stage(steps=2000, learning_rate=1e-3, halt_max_steps=1, L_cycles=3),
    Stage(steps=1000, learning_rate=1e-3, halt_max_steps=4, L_cycles=3),
)

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
    steps=12_000,
    learning_rate=1e-3,
    min_learning_rate_ratio=0.05,
    halt_max_steps=12,
    halt_exploration_prob=0.4,
    micro_batch=8,
    eval_every=3000,
    eval_puzzles=192,
    eval_rollouts=4,
)
