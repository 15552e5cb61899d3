"""Upstream's training step of a TRM in plain PyTorch, written from its specification.

The reference for tests of the trainer, and its PyTorch baseline in the benchmark. One call of
`TorchTrainer.step` is one supervision step: halted rows take a new puzzle, the deep recursion runs
once, with a gradient through its last H cycle, and the weights are updated.

The random numbers of the halting exploration, the learning rates and the EMA decay are arguments
of the step, because schedules and random number generators differ between frameworks.

Source: TRM, arXiv 2510.04871; upstream `pretrain.py`, `models/losses.py`, `models/ema.py`,
`models/recursive_reasoning/trm.py`, `models/sparse_embedding.py`, and the package adam_atan2.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from convert import mapping
from convert.torch_trm import TorchTRM
from ptrm_jax.config import ModelConfig, check_choice

Tensor = torch.Tensor
Optimizer = Literal["adamw", "adam_atan2"]
Loss = Literal["stablemax", "softmax"]

# Buffers upstream: no optimiser state, no weight decay, no average. The puzzle embedding is trained
# by a separate rule.
BUFFERS = (mapping.H_INIT, mapping.L_INIT, mapping.PUZZLE_EMB)


class Batch(NamedTuple):
    """Puzzles with their answers; integer tensors or arrays.

    Attributes:
      inputs: [B, S] tokens.
      labels: [B, S] tokens; `ignore_label` at positions that do not count.
      puzzle_identifiers: [B] rows of the puzzle embedding.
    """

    inputs: Any
    labels: Any
    puzzle_identifiers: Any


class Carry(NamedTuple):
    """State between steps, without gradients.

    Attributes:
      y: [B, L, C], answer embedding (upstream z_H), in the forward dtype.
      z: [B, L, C], latent (upstream z_L), in the forward dtype.
      steps: [B] int32, supervision steps on the current puzzle.
      halted: [B] bool, whether the row takes a new puzzle in the next step.
      batch: the current puzzles.
    """

    y: Tensor
    z: Tensor
    steps: Tensor
    halted: Tensor
    batch: Batch


class Outcome(NamedTuple):
    """One supervision step before its backward pass.

    Attributes:
      y, z: [B, L, C], detached.
      q_halt: [B], at least float32, detached.
      correct: [B, S] bool, whether a position counts and its token is right.
      lm_loss, q_halt_loss: scalars, sums over the rows.
    """

    y: Tensor
    z: Tensor
    q_halt: Tensor
    correct: Tensor
    lm_loss: Tensor
    q_halt_loss: Tensor


def stablemax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log of s(logits)[label] / sum s(logits), s(x) = x + 1 for x >= 0 and 1 / (1 - x) below.

    Args:
      logits: [B, S, V] in any dtype; computed in float64, as upstream does.
      labels: [B, S] int64.
    """
    x = logits.double()
    # Without the clamp, the other branch has an infinite gradient at x = 1, and 0 * inf is NaN.
    s = torch.where(x >= 0, x + 1, 1 / (1 - x.clamp(max=0)))
    return s.sum(-1).log() - s.gather(-1, labels[..., None]).squeeze(-1).log()


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)[label], [B, S], from logits [B, S, V] and labels [B, S] int64.

    Computed in float32, as upstream does, or in float64 from float64.
    """
    x = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(x.transpose(1, -1), labels, reduction="none")


class AdamATan2(torch.optim.Optimizer):
    """Adam with atan2(m, sqrt(v)) in place of m / (sqrt(v) + eps): updates are bounded.

    Source: arXiv 2407.05872; the package adam_atan2, which corrects the bias of m outside the
    arctangent and has no scale factor. A similarly named package differs in both.
    """

    def __init__(
        self, params: list[Tensor], lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # takes no closure
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                state["t"] += 1
                m = state["m"].lerp_(p.grad, 1 - beta1)
                v = state["v"].lerp_(p.grad.square(), 1 - beta2)
                p.mul_(1 - lr * group["weight_decay"])
                denominator = v.sqrt().div_((1 - beta2 ** state["t"]) ** 0.5)
                p.sub_(torch.atan2(m, denominator), alpha=lr / (1 - beta1 ** state["t"]))


class TorchTrainer:
    """Trains a TRM from given weights, one supervision step at a time.

    Attributes:
      carry: after the last step; None before the first, in which every row takes a new puzzle.
      ema: canonical upstream name to averaged weight, float32; `BUFFERS` are not averaged.
    """

    def __init__(
        self,
        config: ModelConfig,
        state: mapping.State,
        *,
        dtype: torch.dtype = torch.float32,
        optimizer: Optimizer = "adam_atan2",
        loss: Loss = "stablemax",
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.1,
        puzzle_emb_weight_decay: float = 0.1,
        halt_max_steps: int = 16,
        ignore_label: int = 0,
        compile: bool = False,
    ) -> None:
        """
        Args:
          config: the architecture.
          state: canonical upstream name to array, the initial weights (copied).
          dtype: of activations, float32 or bfloat16; weights and updates are float32. With float64,
            everything is float64, to measure rounding.
          optimizer: optimiser of everything but `BUFFERS`.
          loss: cross-entropy of the tokens.
          betas: of the optimiser.
          weight_decay: decoupled, of everything that `optimizer` trains.
          puzzle_emb_weight_decay: decoupled, of the puzzle embedding's rows in the batch.
          halt_max_steps: largest number of supervision steps per puzzle.
          ignore_label: label of positions that do not count; upstream rewrites it to -100.
          compile: use torch.compile for the forward pass and the loss.
        """
        check_choice("optimizer", optimizer, Optimizer)
        check_choice("loss", loss, Loss)
        self.config, self.dtype = config, dtype
        self.puzzle_emb_weight_decay = puzzle_emb_weight_decay
        self.halt_max_steps, self.ignore_label = halt_max_steps, ignore_label
        self._cross_entropy = {
            "stablemax": stablemax_cross_entropy,
            "softmax": softmax_cross_entropy,
        }[loss]

        wide = torch.promote_types(dtype, torch.float32)
        masters = {
            name: torch.from_numpy(np.array(value, np.float32)).to(wide)
            for name, value in state.items()
        }
        self._net = TorchTRM(config, state, dtype)
        self._net.weights = masters
        self._trained = {name: w for name, w in masters.items() if name not in BUFFERS}
        for w in self._trained.values():
            w.requires_grad_()
        self.ema = {name: w.detach().clone() for name, w in self._trained.items()}

        trained = list(self._trained.values())
        self._optimizer: torch.optim.Optimizer
        if optimizer == "adamw":
            self._optimizer = torch.optim.AdamW(
                trained, lr=0.0, betas=betas, eps=1e-8, weight_decay=weight_decay, fused=True
            )
        else:
            self._optimizer = AdamATan2(trained, lr=0.0, betas=betas, weight_decay=weight_decay)
        self._outcome = self.outcome
        if compile:
            self._outcome = torch.compile(self.outcome, fullgraph=True, dynamic=False)
        self._puzzle_emb_gradient: tuple[Tensor, Tensor] | None = None
        self.carry: Carry | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """Canonical upstream name to current weight, float32, with buffers; not copies."""
        return {name: w.detach() for name, w in self._net.weights.items()}

    def gradients(self) -> dict[str, Tensor]:
        """Canonical upstream name to gradient in the last step, dense for the puzzle embedding."""
        gradients = {name: w.grad for name, w in self._trained.items() if w.grad is not None}
        if self._puzzle_emb_gradient is not None:
            ids, gradient = self._puzzle_emb_gradient
            table = torch.zeros_like(self._net.weights[mapping.PUZZLE_EMB])
            gradients[mapping.PUZZLE_EMB] = table.index_copy(0, ids, gradient)
        return gradients

    def step(
        self,
        batch: Batch,
        *,
        lr: float,
        puzzle_emb_lr: float,
        explore: Any,
        min_steps: Any,
        ema_decay: float,
    ) -> dict[str, float]:
        """One optimiser step.

        Args:
          batch: new puzzles for the rows that halted; ignored for the others.
          lr: learning rate of the optimiser, after warm-up.
          puzzle_emb_lr: learning rate of the puzzle embedding, after warm-up.
          explore: [B] bool, rows that may not halt before `min_steps`; upstream: with probability
            0.1 (`halt_exploration_prob`).
          min_steps: [B] integers; upstream: uniform on 2 .. halt_max_steps, both included.
          ema_decay: d in ema = d * ema + (1 - d) * weight, after the update.

        Returns:
          Sums over rows, as upstream computes them. Over all rows: `lm_loss`, `q_halt_loss` (divide
          them by B) and `loss`, the mean that is minimised. Over the rows that halted in this step
          and have positions that count: `count`, and `accuracy`, `exact_accuracy`,
          `q_halt_accuracy` and `steps` (divide them by `count`).
        """
        batch = Batch(*map(torch.as_tensor, batch))
        start = self.start(batch)
        rows = None
        if self.config.prefix_len:
            table = self._net.weights[mapping.PUZZLE_EMB]
            rows = table[start.batch.puzzle_identifiers.long()].requires_grad_()

        out = self._outcome(start.y, start.z, rows, start.batch.inputs, start.batch.labels)
        loss = (out.lm_loss + 0.5 * out.q_halt_loss) / len(start.halted)
        self._optimizer.zero_grad()
        loss.backward()

        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        if rows is not None:
            assert rows.grad is not None
            self._update_puzzle_emb(start.batch.puzzle_identifiers, rows.grad, puzzle_emb_lr)
        with torch.no_grad():
            for name, average in self.ema.items():
                average.lerp_(self._trained[name], 1 - ema_decay)

        steps = start.steps + 1
        halted = self.halts(steps, out.q_halt, torch.as_tensor(explore), torch.as_tensor(min_steps))
        self.carry = Carry(out.y, out.z, steps, halted, start.batch)
        return {"loss": loss.item()} | self._metrics(out, self.carry)

    @torch.no_grad()
    def start(self, batch: Batch) -> Carry:
        """The carry at the start of a step: rows that halted take their puzzle from `batch`."""
        size = len(batch.inputs)
        y, z = self._net.initial_carry(size)
        zero, no = torch.zeros(size, dtype=torch.int32), torch.zeros(size, dtype=torch.bool)
        old = self.carry or Carry(y, z, zero, ~no, batch)

        def renew(new: Tensor, old_value: Tensor) -> Tensor:
            return torch.where(old.halted.view(-1, *(1,) * (new.ndim - 1)), new, old_value)

        renewed = Batch(*map(renew, batch, old.batch))
        return Carry(renew(y, old.y), renew(z, old.z), renew(zero, old.steps), no, renewed)

    def outcome(
        self, y: Tensor, z: Tensor, rows: Tensor | None, inputs: Tensor, labels: Tensor
    ) -> Outcome:
        """The forward pass and the losses.

        Args:
          y, z: [B, L, C], the states before the step.
          rows: [B, puzzle_emb_ndim], rows of the puzzle embedding, or None without one.
          inputs: [B, S] tokens.
          labels: [B, S] tokens.
        """
        # Weights are cast at every use, so gradients accumulate in float32; this includes the token
        # embedding, which upstream casts before the look-up.
        net, labels = self._net, labels.long()
        x = net.embed_rows(inputs, rows)
        with torch.no_grad():
            for _ in range(self.config.H_cycles - 1):
                y, z = net.latent_recursion(y, z, x)
        y, z = net.latent_recursion(y, z, x)
        logits, q = net.heads(y)
        q_halt = q[:, 0]  # the second, the continue logit, is neither trained nor used

        mask = labels != self.ignore_label
        count = mask.sum(-1)
        correct = mask & (logits.detach().argmax(-1) == labels)
        exact = correct.sum(-1) == count
        token_loss = self._cross_entropy(logits, labels.masked_fill(~mask, 0))
        row_loss = torch.where(mask, token_loss, 0).sum(-1) / count.clamp(min=1)
        q_halt_loss = F.binary_cross_entropy_with_logits(
            q_halt, exact.to(q_halt.dtype), reduction="sum"
        )
        return Outcome(
            y.detach(), z.detach(), q_halt.detach(), correct, row_loss.sum(), q_halt_loss
        )

    def halts(self, steps: Tensor, q_halt: Tensor, explore: Tensor, min_steps: Tensor) -> Tensor:
        """Whether rows halt after a step, [B] bool; `steps` includes that step."""
        last = steps >= self.halt_max_steps
        if self.halt_max_steps == 1:
            return last
        return (last | (q_halt > 0)) & (steps >= explore * min_steps)

    def _metrics(self, out: Outcome, carry: Carry) -> dict[str, float]:
        count = (carry.batch.labels != self.ignore_label).sum(-1)
        counted = carry.halted & (count > 0)
        right = out.correct.sum(-1)
        exact = right == count
        rows = {
            "count": torch.ones_like(count),
            "accuracy": right / count.clamp(min=1),
            "exact_accuracy": exact,
            "q_halt_accuracy": (out.q_halt >= 0) == exact,
            "steps": carry.steps,
        }
        sums = {name: float(value[counted].sum()) for name, value in rows.items()}
        return {"lm_loss": out.lm_loss.item(), "q_halt_loss": out.q_halt_loss.item()} | sums

    @torch.no_grad()
    def _update_puzzle_emb(self, ids: Tensor, gradient: Tensor, lr: float) -> None:
        """Sign SGD on the rows in the batch.

        Args:
          ids: [B] row numbers.
          gradient: [B, puzzle_emb_ndim].
          lr: learning rate.
        """
        table = self._net.weights[mapping.PUZZLE_EMB]
        touched, inverse = ids.long().unique(return_inverse=True)
        summed = gradient.new_zeros(len(touched), table.shape[1]).index_add_(0, inverse, gradient)
        decayed = table[touched] * (1 - lr * self.puzzle_emb_weight_decay)
        table[touched] = decayed - lr * summed.sign()
        self._puzzle_emb_gradient = touched, summed
