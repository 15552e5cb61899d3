"""Sudoku-Extreme: K = 100, D = 64, sigma 0.3.

    python experiments/ptrm_sweep.py sudoku-extreme --checkpoint DIR --data DATA --num-puzzles N

DATA is upstream's folder (`data/sudoku-extreme-1k-aug-1000`, its split "test") or a CSV file
`source,question,answer,rating`. Paper: TRM at D = 16 87.28 %, best-Q@100 98.75 %, pass@100 99.06 %;
it has no TRM at D = 64, nor at equal compute, which are run here too.

A puzzle takes 6,400 rollout-steps of 25.6 GFLOP for PTRM and as many for TRM at equal compute, 328
TFLOP. On one H100 at an assumed 400 TFLOP/s in bfloat16 (not measured: no accelerator was at hand)
that is 0.8 seconds, so 1,000 puzzles in a quarter of an hour and all 422,786 in four days. Without
--num-puzzles all are run. With --stop-q the rollouts of a puzzle end when Q is high enough. On our
small `sudoku9` this takes a tenth of K * D and costs half a point; were it so for the paper's
checkpoint, which we do not have, ten hours would do.
"""

from ptrm_jax.sweep import SweepConfig

CONFIG = SweepConfig(
    task="sudoku",
    sigmas=(0.3,),
    rollouts=100,
    depth=64,
    num_puzzles=None,
)
GRID = ((1, 5, 10, 25, 100), (16, 32, 48, 64))
