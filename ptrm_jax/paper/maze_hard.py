"""Maze-Hard, 30x30: K = 100, D = 16, sigma 1.

    python experiments/ptrm_sweep.py maze-hard --checkpoint DIR --data DATA

DATA is upstream's folder (`data/maze-30x30-hard-1k`, its split "test") or a CSV file
`source,question,answer,rating`. Paper: TRM at D = 16 83.80 %, best-Q@100 85.17 %, pass@100 95.63 %,
mode@100 86.73 % (its headline).

"solved" is equality with the label. No maze of Maze-Hard has a single shortest path, and its label
is the one of a particular tie-break; "rules hold" counts every valid shortest path.

A puzzle takes 1,600 rollout-steps of 239 GFLOP for PTRM and as many for TRM at equal compute, 764
TFLOP: on one H100 at an assumed 400 TFLOP/s in bfloat16 (not measured: no accelerator was at hand)
two seconds, all 1,000 half an hour.
"""

from ptrm_jax.sweep import SweepConfig

CONFIG = SweepConfig(
    task="maze",
    sigmas=(1.0,),
    rollouts=100,
    depth=16,
    num_puzzles=None,
)
GRID = ((1, 5, 10, 25, 100), (16,))
