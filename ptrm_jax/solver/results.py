"""What a solve returns."""

from typing import Generic, NamedTuple

from ptrm_jax.puzzles import ArrayT


class Trajectory(NamedTuple, Generic[ArrayT]):
    """What `Save` keeps of every supervision step, taken after it; None for what it does not.

    Leading axes are [N, D] from `run_lanes` and [B, K, D] in a `Solution`.

    Attributes:
      finite: [...] bool, whether logits and Q of the step are finite; always kept.
      answers: [..., S] int32.
      q_logits: [...] float32 logits.
      y: [..., L, C] in the compute dtype.
      z: [..., L, C] in the compute dtype.
    """

    finite: ArrayT
    answers: ArrayT | None
    q_logits: ArrayT | None
    y: ArrayT | None
    z: ArrayT | None


class LaneResults(NamedTuple, Generic[ArrayT]):
    """Results of N lanes, each read at one step.

    Attributes:
      answers: [N, S] int32.
      q_logits: [N] float32 logits.
      finite: [N] bool, whether all logits and Q are finite.
      step: [N] int32, the step that is read, from 1. Read at the best step, a lane without a finite
        step has step 0, Q -inf and answer 0.
      trajectory: per step, or None.
    """

    answers: ArrayT
    q_logits: ArrayT
    finite: ArrayT
    step: ArrayT
    trajectory: Trajectory[ArrayT] | None


class Solution(NamedTuple, Generic[ArrayT]):
    """The chosen answers and the rollouts they were chosen from.

    Attributes:
      answer: [B, S] int32; all 0 (PAD) where no rollout was finite.
      q_logit: [B] float32, the chosen rollout's halt logit; -inf where none was finite.
      rollout: [B] int32, position of the chosen rollout among the K; -1 where none was finite.
      step: [B] int32, the supervision step at which it was read, from 1; 0 where none was finite.
      rollout_answers: [B, K, S] int32.
      rollout_q_logits: [B, K] float32 logits.
      rollout_finite: [B, K] bool; a rollout that is not finite is never chosen.
      rollout_step: [B, K] int32, the step at which each rollout was read; D with `read="last"`.
      trajectory: what `save` keeps of every step, with leading axes [B, K, D], or None.
    """

    answer: ArrayT
    q_logit: ArrayT
    rollout: ArrayT
    step: ArrayT
    rollout_answers: ArrayT
    rollout_q_logits: ArrayT
    rollout_finite: ArrayT
    rollout_step: ArrayT
    trajectory: Trajectory[ArrayT] | None
