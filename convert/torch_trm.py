"""The Tiny Recursive Model in plain PyTorch, written from its specification.

The reference of the parity check and the PyTorch baseline of the benchmark. It uses upstream's
tensor names and layouts, so that it shares nothing with the port. Loss and halting are in
`convert.torch_training`.

Source: TRM, arXiv 2510.04871; upstream `models/recursive_reasoning/trm.py`, `models/layers.py`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from convert import mapping
from ptrm_jax.config import ModelConfig

Tensor = torch.Tensor


def as_stated(config: ModelConfig, arch: Mapping[str, Any]) -> ModelConfig:
    """The architecture with what `arch` of all_config.yaml says that no tensor shows.

    Read apart from `convert.architecture`, so that the comparison is with what the checkpoint says
    it is, rather than with what was made of it.

    Raises:
      ConversionError: its `pos_encodings` are none of TRM's.
    """
    same = ("H_cycles", "L_cycles", "num_heads", "rms_norm_eps", "rope_theta")
    said = {name: arch[name] for name in same if arch.get(name) is not None}
    said |= {name: float(said[name]) for name in same[3:] if name in said}
    positions = arch.get("pos_encodings")
    if positions is not None and config.variant == "attention":
        if positions not in ("rope", "learned", "none"):
            raise mapping.ConversionError(f"TRM has no positions {positions!r}")
        said["positions"] = positions
    return dataclasses.replace(config, **said)


class TorchTRM:
    """A TRM for batches: states are [B, L, C] in `dtype`.

    Attributes:
      config: the architecture.
      dtype: of activations and of the weights when used; float64 serves to measure rounding.
      weights: canonical upstream name to tensor. Every use casts, so these may be the float32
        weights of a training run, which then receive the gradients.
    """

    def __init__(
        self, config: ModelConfig, state: mapping.State, dtype: torch.dtype = torch.float32
    ) -> None:
        """
        Args:
          config: the architecture.
          state: canonical upstream name to array (`convert.files.read_state`,
            `convert.mapping.to_upstream`).
          dtype: float32, bfloat16 or float64.
        """
        self.config, self.dtype = config, dtype
        # Casting once gives the same values as casting at every use. The embeddings are cast after
        # the look-up, because a table may have a million rows.
        self.weights = {
            name: torch.from_numpy(np.array(value, np.float32))
            if name in (mapping.EMBED_TOKENS, mapping.PUZZLE_EMB)
            else torch.from_numpy(np.array(value, np.float32)).to(dtype)
            for name, value in state.items()
        }
        self._rotary = self._rotary_tables() if config.positions == "rope" else None

    def to(self, device: torch.device | str) -> "TorchTRM":
        """This network, with its weights on a device."""
        self.weights = {name: value.to(device) for name, value in self.weights.items()}
        if self._rotary is not None:
            cos, sin = self._rotary
            self._rotary = cos.to(device), sin.to(device)
        return self

    def _rotary_tables(self) -> tuple[Tensor, Tensor]:
        """cos and sin, [L, 1, head_dim], at least float32."""
        dim, at_least = self.config.head_dim, self._at_least_float32
        frequency = self.config.rope_theta ** -(torch.arange(0, dim, 2, dtype=at_least) / dim)
        angle = torch.outer(torch.arange(self.config.length, dtype=at_least), frequency)
        angle = torch.cat([angle, angle], dim=-1)[:, None]
        return angle.cos(), angle.sin()

    @property
    def _at_least_float32(self) -> torch.dtype:
        return torch.promote_types(self.dtype, torch.float32)

    def embed(self, inputs: Tensor, puzzle_identifiers: Tensor) -> Tensor:
        """Scaled input embedding, [B, L, C].

        Args:
          inputs: [B, S] integer tokens.
          puzzle_identifiers: [B] integer rows of the puzzle embedding.
        """
        rows = None
        if self.config.prefix_len:
            rows = self.weights[mapping.PUZZLE_EMB][puzzle_identifiers.long()]
        return self.embed_rows(inputs, rows)

    def embed_rows(self, inputs: Tensor, rows: Tensor | None) -> Tensor:
        """`embed` given rows of the puzzle embedding, [B, puzzle_emb_ndim] or None."""
        cfg = self.config
        x = F.embedding(inputs.long(), self.weights[mapping.EMBED_TOKENS]).to(self.dtype)
        if rows is not None:
            rows = rows.to(self.dtype)
            rows = F.pad(rows, (0, cfg.prefix_len * cfg.hidden_size - cfg.puzzle_emb_ndim))
            x = torch.cat([rows.view(-1, cfg.prefix_len, cfg.hidden_size), x], dim=1)
        if cfg.positions == "learned":
            x = 0.707106781 * (x + self._weight(mapping.EMBED_POS))
        return math.sqrt(cfg.hidden_size) * x

    def initial_carry(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """y and z before the first step, [B, L, C] each."""
        shape = (batch_size, self.config.length, self.config.hidden_size)
        y, z = (self._weight(name).expand(shape) for name in (mapping.H_INIT, mapping.L_INIT))
        return y, z

    def _norm(self, x: Tensor) -> Tensor:
        wide = x.to(self._at_least_float32)
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.config.rms_norm_eps)
        return (wide * scale).to(x.dtype)

    def _swiglu(self, x: Tensor, i: int, up: str, down: str) -> Tensor:
        gate, value = F.linear(x, self._layer(i, up)).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * value, self._layer(i, down))

    def _weight(self, name: str) -> Tensor:
        return self.weights[name].to(self.dtype)  # no copy if it has that dtype already

    def _layer(self, i: int, part: str) -> Tensor:
        return self._weight(mapping.layer_weight(i, part))

    def _rotate(self, x: Tensor) -> Tensor:
        if self._rotary is None:
            return x
        cos, sin = self._rotary
        low, high = x.to(cos.dtype).chunk(2, dim=-1)
        return (x * cos + torch.cat([-high, low], dim=-1) * sin).to(x.dtype)

    def _attention(self, x: Tensor, i: int) -> Tensor:
        cfg = self.config
        fused = F.linear(x, self._layer(i, mapping.QKV))
        fused = fused.view(*x.shape[:2], 3 * cfg.num_heads, cfg.head_dim)
        q, k, v = fused.split(cfg.num_heads, dim=2)
        q, k = self._rotate(q), self._rotate(k)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v)  # scale 1 / sqrt(head_dim), no mask
        return F.linear(out.transpose(1, 2).reshape(x.shape), self._layer(i, mapping.OUT))

    def block(self, x: Tensor, i: int) -> Tensor:
        """Block i of the network, [B, L, C] -> [B, L, C]."""
        if self.config.variant == "mlp_t":
            x = x.transpose(1, 2)
            x = self._norm(x + self._swiglu(x, i, mapping.MLP_T_UP, mapping.MLP_T_DOWN))
            x = x.transpose(1, 2)
        else:
            x = self._norm(x + self._attention(x, i))
        return self._norm(x + self._swiglu(x, i, mapping.MLP_UP, mapping.MLP_DOWN))

    def f(self, s: Tensor, injection: Tensor) -> Tensor:
        """The network: adds the injection once, then applies every block."""
        s = s + injection
        for i in range(self.config.num_layers):
            s = self.block(s, i)
        return s

    def deep_recursion(self, y: Tensor, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """One supervision step; returns the new y and z.

        Args:
          y: [B, L, C], answer embedding (upstream z_H).
          z: [B, L, C], latent (upstream z_L).
          x: [B, L, C], input embedding.
        """
        for _ in range(self.config.H_cycles):
            y, z = self.latent_recursion(y, z, x)
        return y, z

    def latent_recursion(self, y: Tensor, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """One H cycle: `L_cycles` updates of z, then one of y."""
        injection = y + x
        for _ in range(self.config.L_cycles):
            z = self.f(z, injection)
        return self.f(y, z), z

    def heads(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, S, V] in `dtype`, and Q logits [B, 2] (halt first), at least float32."""
        logits = F.linear(y[:, self.config.prefix_len :], self._weight(mapping.LM_HEAD))
        q = F.linear(y[:, 0], self._weight(mapping.Q_WEIGHT), self._weight(mapping.Q_BIAS))
        return logits, q.to(self._at_least_float32)
