"""Settings: frozen, hashable, checked when they are built.

`ModelConfig` is what a checkpoint fixes, `Precision` is how a run computes it, `Save` is what a
solve keeps. All of them are static under `jax.jit`.
"""

import dataclasses
import json
import math
from typing import Any, Literal, get_args

import jax.numpy as jnp

from ptrm_jax.errors import InputError

DType = Literal["float32", "bfloat16"]
MatmulPrecision = Literal["default", "high", "highest", "bfloat16"]
Variant = Literal["attention", "mlp_t"]
Positions = Literal["rope", "learned", "none"]
QPooling = Literal["first", "attention"]
NoiseOn = Literal["z", "y", "both"]
NoiseWhen = Literal["every", "first"]
Backend = Literal["pmap", "mesh"]
KeepAnswers = Literal["none", "last", "all"]

DEFAULT_LANE_TILE = 8
"""Rollouts that the solver carries through the network together, unless told otherwise.

Small tiles stay in a CPU's cache; an accelerator wants hundreds. The tile decides the shapes of
the arithmetic, and so the last bits of a result, and it bounds memory.
"""


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raises ValueError unless `value` is one of the strings of a Literal type."""
    allowed = get_args(choices)
    if value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


def check_int(name: str, value: object, minimum: int) -> None:
    """Raises ValueError unless `value` is a Python int of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise InputError(f"{name} must be a whole number >= {minimum}; got {value!r}")


def check_step_size(value: object) -> None:
    """Raises InputError unless `value` is a finite, positive number."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value > 0):
        raise InputError(f"step_size must be finite and > 0; got {value!r}")


def swiglu_width(size: int, expansion: float) -> int:
    """Inner width of a SwiGLU over `size` channels: rounded up to a multiple of 256.

    Source: upstream `models/layers.py`, class SwiGLU.
    """
    return -(-round(expansion * size * 2 / 3) // 256) * 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of a Tiny Recursive Model, as a checkpoint fixes it.

    The names are upstream's where upstream has one. The inner widths are stored rather than
    upstream's `expansion`, because they are what the weights show; `swiglu_width` relates them.

    Attributes:
      vocab_size: V, tokens, padding included.
      seq_len: S, tokens of a puzzle.
      hidden_size: h, channels.
      num_layers: blocks in the one network f (upstream `L_layers`).
      H_cycles: T, latent recursions in one deep recursion.
      L_cycles: n, updates of z in one latent recursion.
      mlp_width: inner width of the channel SwiGLU.
      variant: "attention" or "mlp_t" (a SwiGLU over positions in place of attention).
      mlp_t_width: inner width of the position SwiGLU; 0 for attention.
      num_heads: attention heads; stored but unused by "mlp_t".
      positions: "rope", "learned" or "none" (upstream `pos_encodings`).
      prefix_len: P, positions in front of the tokens that hold the puzzle embedding.
      puzzle_emb_ndim: width of a row of the puzzle embedding before it is padded to P * h; 0
        for none.
      num_puzzle_identifiers: rows of the puzzle embedding.
      rms_norm_eps: added to the mean square inside every norm.
      rope_theta: base of the rotary angles.
      forward_dtype: activation dtype the checkpoint was trained with; the default to compute in.
      q_pooling: what the Q head reads: y at the "first" position, as upstream's, or the mean of y
        over all positions weighted by "attention" with one learned query (`TRM.q_logits`).

    Raises:
      ValueError: naming every field that breaks a rule.
    """

    vocab_size: int
    seq_len: int
    hidden_size: int
    num_layers: int
    H_cycles: int
    L_cycles: int
    mlp_width: int
    variant: Variant
    mlp_t_width: int = 0
    num_heads: int = 1
    positions: Positions = "none"
    prefix_len: int = 0
    puzzle_emb_ndim: int = 0
    num_puzzle_identifiers: int = 1
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    forward_dtype: DType = "bfloat16"
    q_pooling: QPooling = "first"

    @property
    def length(self) -> int:
        """L = P + S, positions the network sees."""
        return self.prefix_len + self.seq_len

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    def __post_init__(self) -> None:
        problems: list[str] = []

        def check(rule: Any, *args: Any) -> None:
            try:
                rule(*args)
            except ValueError as error:
                problems.append(str(error))

        for name in (
            *("vocab_size", "seq_len", "hidden_size", "num_layers", "H_cycles", "L_cycles"),
            *("mlp_width", "num_heads", "num_puzzle_identifiers"),
        ):
            check(check_int, name, getattr(self, name), 1)
        for name in ("mlp_t_width", "prefix_len", "puzzle_emb_ndim"):
            check(check_int, name, getattr(self, name), 0)
        check(check_choice, "variant", self.variant, Variant)
        check(check_choice, "positions", self.positions, Positions)
        check(check_choice, "forward_dtype", self.forward_dtype, DType)
        check(check_choice, "q_pooling", self.q_pooling, QPooling)
        for name in ("rms_norm_eps", "rope_theta"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value > 0):
                problems.append(f"{name} must be a positive number; got {value!r}")
        if not problems:
            problems = self._contradictions()
        if problems:
            raise InputError("invalid ModelConfig: " + "; ".join(problems))

    def _contradictions(self) -> list[str]:
        problems = []
        if self.variant == "mlp_t" and self.mlp_t_width < 1:
            problems.append("mlp_t_width must be >= 1 for variant 'mlp_t'; got 0")
        if self.variant == "attention":
            if self.mlp_t_width:
                problems.append(
                    f"mlp_t_width must be 0 for variant 'attention'; got {self.mlp_t_width}"
                )
            if self.hidden_size % self.num_heads:
                problems.append(
                    f"num_heads ({self.num_heads}) must divide hidden_size ({self.hidden_size})"
                )
            elif self.positions == "rope" and self.head_dim % 2:
                problems.append(f"rope needs an even head size; got {self.head_dim}")
        if (self.puzzle_emb_ndim == 0) != (self.prefix_len == 0):
            problems.append(
                "prefix_len and puzzle_emb_ndim must both be 0 (no puzzle embedding) or both "
                f"positive; got {self.prefix_len} and {self.puzzle_emb_ndim}"
            )
        if self.puzzle_emb_ndim > self.prefix_len * self.hidden_size:
            problems.append(
                f"puzzle_emb_ndim ({self.puzzle_emb_ndim}) must fit into prefix_len * hidden_size "
                f"({self.prefix_len} * {self.hidden_size})"
            )
        return problems

    def to_dict(self) -> dict[str, Any]:
        """All fields, but q_pooling where it is "first": digests are older than it."""
        fields = dataclasses.asdict(self)
        if self.q_pooling == "first":
            del fields["q_pooling"]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "ModelConfig":
        """Inverse of `to_dict`; unknown and missing fields are refused by name (ValueError)."""
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - set(known))
        missing = sorted(
            name
            for name, field in known.items()
            if field.default is dataclasses.MISSING and name not in fields
        )
        if unknown or missing:
            raise InputError(
                f"invalid ModelConfig: unknown fields {unknown}, missing fields {missing}"
            )
        return cls(**fields)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)


@dataclasses.dataclass(frozen=True)
class Precision:
    """How a run computes: recorded with every result, because backends differ in their defaults.

    Attributes:
      compute_dtype: dtype of activations; the float32 weights are cast to it where they are used.
      matmul: `jax.lax.Precision` of every matrix product. A TPU runs a float32 product in bfloat16
        passes, a GPU in TF32, unless this says "highest". "bfloat16" says so in the program, for
        every backend alike: the operands of each product, in the derivative too, are rounded to
        bfloat16, and it is summed and returned in float32. All else stays float32, and the Q head
        entirely, because rollouts are ranked by its logits.
      q_dtype: dtype of the Q head. Upstream computes it in `compute_dtype` (the default, None);
        in bfloat16 a logit near 6 is then quantised to 1/32, and exact ties are normal.

    Raises:
      ValueError: when built, for an unknown value, and for matmul "bfloat16" with compute_dtype
        "bfloat16", whose operands are bfloat16 anyway.
    """

    compute_dtype: DType = "float32"
    matmul: MatmulPrecision = "highest"
    q_dtype: DType | None = None

    def __post_init__(self) -> None:
        check_choice("compute_dtype", self.compute_dtype, DType)
        check_choice("matmul", self.matmul, MatmulPrecision)
        if self.q_dtype is not None:
            check_choice("q_dtype", self.q_dtype, DType)
        if self.matmul == self.compute_dtype == "bfloat16":
            raise InputError(
                "matmul must not be 'bfloat16' with compute_dtype 'bfloat16', whose products have "
                "bfloat16 operands already; pass matmul 'highest', or compute_dtype 'float32'"
            )

    @property
    def dtype(self) -> jnp.dtype:
        return jnp.dtype(self.compute_dtype)

    @property
    def q_head_dtype(self) -> jnp.dtype:
        return jnp.dtype(self.q_dtype or self.compute_dtype)

    @property
    def unrounded(self) -> "Precision":
        """This, without rounding the operands of products: for the Q head."""
        return dataclasses.replace(self, matmul="highest") if self.matmul == "bfloat16" else self


@dataclasses.dataclass(frozen=True)
class Save:
    """What `solve` keeps of every supervision step, beside the answers after the last.

    Attributes:
      answers: [B, K, D, S] int32.
      q_logits: [B, K, D] float32.
      latents: y and z, [B, K, D, L, C] in the compute dtype each: large.

    Raises:
      ValueError: when built, unless each is a bool.
    """

    answers: bool = False
    q_logits: bool = False
    latents: bool = False

    def __post_init__(self) -> None:
        for name in ("answers", "q_logits", "latents"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be True or False; got {getattr(self, name)!r}")

    @property
    def nothing(self) -> bool:
        return not (self.answers or self.q_logits or self.latents)


@dataclasses.dataclass(frozen=True)
class Langevin:
    """Langevin dynamics on z between supervision steps; see `ptrm_jax.solver.langevin_update`.

    Attributes:
      num_updates: N, updates between two steps.
      step_size: eta. The paper states neither.
      gradient: False is the paper's control: the gradient term is zero, the noise stays.

    Raises:
      ValueError: when built, for a setting out of range.

    Source: PTRM, Appendix C.
    """

    num_updates: int
    step_size: float
    gradient: bool = True

    def __post_init__(self) -> None:
        check_int("num_updates", self.num_updates, 1)
        check_step_size(self.step_size)
        if not isinstance(self.gradient, bool):
            raise InputError(f"gradient must be True or False; got {self.gradient!r}")

    @property
    def matched_sigma(self) -> float:
        """The sigma of plain noise with the variance that the N updates add: sqrt(2 eta N)."""
        return math.sqrt(2 * self.step_size * self.num_updates)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """What is static in the loop of Algorithm 1; see `solve` for the meaning of each.

    Raises:
      ValueError: when built, for a setting out of range.
    """

    depth: int = 16
    noise_on: NoiseOn = "z"
    noise_when: NoiseWhen = "every"
    langevin: Langevin | None = None
    save: Save = Save()
    lane_tile: int = DEFAULT_LANE_TILE

    def __post_init__(self) -> None:
        check_int("depth", self.depth, 1)
        check_int("lane_tile", self.lane_tile, 1)
        check_choice("noise_on", self.noise_on, NoiseOn)
        check_choice("noise_when", self.noise_when, NoiseWhen)
        if not (self.langevin is None or isinstance(self.langevin, Langevin)):
            raise InputError(f"langevin must be a Langevin or None; got {self.langevin!r}")
