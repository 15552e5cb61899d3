"""Settings: frozen, hashable dataclasses, checked when they are built; static under `jax.jit`.

A checkpoint fixes the `ModelConfig`; a run chooses `Precision`, `Langevin`, `Save`, `Stop` and the
rest of `LoopSettings`.
"""

import dataclasses
import json
import math
import operator
from typing import Any, Literal, TypeVar, get_args

import jax.numpy as jnp
import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.reading import shown

DType = Literal["float32", "bfloat16"]
MatmulPrecision = Literal["default", "high", "highest", "bfloat16"]
Variant = Literal["attention", "mlp_t"]
Positions = Literal["rope", "learned", "none"]
QPooling = Literal["first", "attention"]
NoiseOn = Literal["z", "y", "both"]
NoiseWhen = Literal["every", "first"]
Backend = Literal["pmap", "mesh"]
KeepAnswers = Literal["none", "last", "all"]
Read = Literal["last", "best"]
Arrangement = Literal["cpu", "accelerator"]
"""How the network's program is written for a kind of hardware; the mathematics are the same.

Products of bfloat16, sums in another order and another formula of silu make last bits differ, so
the arrangement is recorded with a result.
"""

DEFAULT_LANE_TILE = 8
"""Default number of lanes that go through the network together.

Small tiles fit a CPU's cache; accelerators need hundreds. The tile sets the shapes of the
arithmetic, and so the last bits of a result, and it bounds memory.
"""


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raises InputError unless `value` is one of the strings of a Literal type."""
    allowed = get_args(choices)
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(allowed)}; got {shown(value)}")


def check_int(name: str, value: object, minimum: int, maximum: int | None = None) -> None:
    """Raises InputError unless `value` is a Python int of at least `minimum`, at most `maximum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        is_numpy = isinstance(value, np.integer) and value >= minimum
        remedy = f"; pass int({name})" if is_numpy else ""
        raise InputError(f"{name} must be a whole number >= {minimum}; got {shown(value)}{remedy}")
    if maximum is not None and value > maximum:
        raise InputError(f"{name} must be at most {maximum:,}; got {shown(value)}")


def whole_number(name: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """A Python int of at least `minimum`, at most `maximum`; numpy's integers are converted.

    Raises:
      InputError: it is not a whole number, or out of range.
    """
    if isinstance(value, np.integer):
        value = operator.index(value)
    check_int(name, value, minimum, maximum)
    assert isinstance(value, int)
    return value


def check_step_size(value: object) -> None:
    """Raises InputError unless `value` is a finite, positive number."""
    if not _is_positive(value):
        raise InputError(f"step_size must be finite and > 0; got {value!r}")


def _is_positive(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and value > 0


def check_precision(compute_dtype: object, matmul: object, q_dtype: object) -> None:
    """Raises InputError unless the three are a `Precision`."""
    check_choice("compute_dtype", compute_dtype, DType)
    check_choice("matmul", matmul, MatmulPrecision)
    if q_dtype is not None:
        check_choice("q_dtype", q_dtype, DType)
    if matmul == compute_dtype == "bfloat16":
        raise InputError(
            "matmul must not be 'bfloat16' with compute_dtype 'bfloat16', whose products have "
            "bfloat16 operands already; pass matmul 'highest', or compute_dtype 'float32'"
        )


Group = TypeVar("Group")


def group(settings: object, kind: type[Group]) -> Group:
    """The fields of `settings` that belong to a dataclass it derives from, as one of that class."""
    assert dataclasses.is_dataclass(kind)
    return kind(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(kind)})


def swiglu_width(size: int, expansion: float) -> int:
    """Inner width of a SwiGLU over `size` channels: rounded up to a multiple of 256.

    Source: upstream `models/layers.py`, class SwiGLU.
    """
    return -(-round(expansion * size * 2 / 3) // 256) * 256


_MAY_BE_ZERO = ("mlp_t_width", "prefix_len", "puzzle_emb_ndim")
_MOST = {"num_layers": 64, "H_cycles": 10**4, "L_cycles": 10**4, "num_puzzle_identifiers": 2**27}
"""Far beyond any model; a file may state anything, and layers are built one by one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of a Tiny Recursive Model, fixed by its checkpoint.

    Names follow upstream where it has one. The inner widths are stored rather than upstream's
    `expansion`, because the weights' shapes show them; `swiglu_width` relates the two.

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
      forward_dtype: activation dtype the checkpoint was trained with; the default compute dtype.
      q_pooling: the input of the Q head: y at the "first" position, as upstream, or the mean of y
        over all positions weighted by "attention" with one learned query (`TRM.q_logits`).

    Raises:
      InputError: naming every field that breaks a rule.
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

        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            try:
                if field.type is int:
                    least, most = int(name not in _MAY_BE_ZERO), _MOST.get(name, 2**20)
                    object.__setattr__(self, name, whole_number(name, value, least, most))
                elif field.type is not float:
                    check_choice(name, value, field.type)
                elif not _is_positive(value):
                    raise InputError(f"{name} must be a positive number; got {shown(value)}")
            except InputError as error:
                problems.append(str(error))
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
        """All fields, except q_pooling where it is "first": older digests were taken without it."""
        fields = dataclasses.asdict(self)
        if self.q_pooling == "first":
            del fields["q_pooling"]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "ModelConfig":
        """Inverse of `to_dict`.

        Raises:
          InputError: naming unknown, missing and invalid fields.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - set(known))
        missing = sorted(
            name
            for name, field in known.items()
            if field.default is dataclasses.MISSING and name not in fields
        )
        if unknown or missing:
            raise InputError(
                f"invalid ModelConfig: unknown fields {shown(unknown)}, missing fields {missing}"
            )
        return cls(**fields)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)


@dataclasses.dataclass(frozen=True)
class Precision:
    """Numerics of a run; recorded with every result, because backends differ in their defaults.

    Attributes:
      compute_dtype: dtype of activations; the float32 weights are cast to it where they are used.
      matmul: `jax.lax.Precision` of every matrix product. Below "highest" a TPU computes float32
        products in bfloat16 passes, a GPU in TF32. "bfloat16" rounds the operands of each product
        to bfloat16 on every backend, also in derivatives, and accumulates and returns float32.
        Everything else stays float32, including all of the Q head, whose logits rank rollouts.
      q_dtype: dtype of the Q head; None for `compute_dtype`, as upstream. In bfloat16 a logit near
        6 is rounded to a multiple of 1/32, and exact ties are common.

    Raises:
      InputError: an unknown value, or matmul "bfloat16" with compute_dtype "bfloat16", whose
        operands are bfloat16 anyway.
    """

    compute_dtype: DType = "float32"
    matmul: MatmulPrecision = "highest"
    q_dtype: DType | None = None

    def __post_init__(self) -> None:
        check_precision(self.compute_dtype, self.matmul, self.q_dtype)

    @property
    def dtype(self) -> jnp.dtype:
        return jnp.dtype(self.compute_dtype)

    @property
    def q_head_dtype(self) -> jnp.dtype:
        return jnp.dtype(self.q_dtype or self.compute_dtype)

    @property
    def unrounded(self) -> "Precision":
        """The same without rounding the operands of products; for the Q head."""
        return dataclasses.replace(self, matmul="highest") if self.matmul == "bfloat16" else self

    @property
    def in_one_pass(self) -> "Precision":
        """The same where operands are bfloat16: their products are exact in one pass already.

        A TPU's compiler does not fuse a product of higher precision with what makes its operands.
        """
        bfloat16 = self.compute_dtype == "bfloat16"
        return dataclasses.replace(self, matmul="default") if bfloat16 else self


@dataclasses.dataclass(frozen=True)
class Save:
    """What `solve` keeps of every supervision step, in addition to the final answers.

    Attributes:
      answers: [B, K, D, S] int32.
      q_logits: [B, K, D] float32.
      latents: y and z, [B, K, D, L, C] in the compute dtype each: large.

    Raises:
      InputError: unless each is a bool.
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
      gradient: False is the paper's control: noise without the gradient term.

    Raises:
      InputError: a setting out of range.

    Source: PTRM, Appendix C.
    """

    num_updates: int
    step_size: float
    gradient: bool = True

    def __post_init__(self) -> None:
        number = whole_number("num_updates", self.num_updates, 1)
        object.__setattr__(self, "num_updates", number)
        check_step_size(self.step_size)
        if not isinstance(self.gradient, bool):
            raise InputError(f"gradient must be True or False; got {self.gradient!r}")

    @property
    def matched_sigma(self) -> float:
        """The sigma of plain noise with the variance of the N updates' noise: sqrt(2 eta N)."""
        return math.sqrt(2 * self.step_size * self.num_updates)


@dataclasses.dataclass(frozen=True)
class Stop:
    """When the rollouts of a puzzle stop: as soon as Q is high enough.

    Rollouts are taken in the order of their ids, each from step 1. A rollout fires at the first
    step t >= `min_depth` at which each of the steps t - `patience` + 1 .. t exists, is finite and
    has Q >= `q_logit`; it runs no further. The puzzle stops at the first rollout by whose firing
    `agree` rollouts have fired with one and the same answer, and the answer of that step is given.
    Where that never happens, the answer is that of the highest finite Q over all steps that ran;
    ties go to the lower rollout, then to the lower step. `metrics.replay` applies the rule to kept
    trajectories.

    Attributes:
      q_logit: threshold on Q, a logit, compared in float32; infinity never stops.
      patience: steps in a row whose Q reaches the threshold.
      min_depth: the first step, from 1, at which a rollout may fire.
      agree: rollouts that must fire with the same answer.
      max_rollout_steps: supervision steps that all rollouts of a puzzle may take together, or None.
        Steps beyond it do not run: the rollout in which it falls is cut short, and a rollout that
        would fire later does not.

    Raises:
      InputError: a setting out of range.

    Source: none in the paper, whose Algorithm 1 always takes K * D steps.
    """

    q_logit: float
    patience: int = 1
    min_depth: int = 1
    agree: int = 1
    max_rollout_steps: int | None = None

    def __post_init__(self) -> None:
        is_number = isinstance(self.q_logit, (int, float)) and not isinstance(self.q_logit, bool)
        if not is_number or math.isnan(self.q_logit):
            raise InputError(
                f"q_logit must be a number, not NaN; got {self.q_logit!r}; pass math.inf to never "
                "stop"
            )
        for name in ("patience", "min_depth", "agree"):
            check_int(name, getattr(self, name), 1)
        if self.max_rollout_steps is not None:
            check_int("max_rollout_steps", self.max_rollout_steps, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """The static settings of the loop of Algorithm 1; `solve` documents them.

    Raises:
      InputError: a setting out of range.
    """

    depth: int = 16
    noise_on: NoiseOn = "z"
    noise_when: NoiseWhen = "every"
    langevin: Langevin | None = None
    read: Read = "last"
    save: Save = Save()
    lane_tile: int = DEFAULT_LANE_TILE

    def __post_init__(self) -> None:
        for name in ("depth", "lane_tile"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 1))
        check_choice("noise_on", self.noise_on, NoiseOn)
        check_choice("noise_when", self.noise_when, NoiseWhen)
        check_choice("read", self.read, Read)
        if not (self.langevin is None or isinstance(self.langevin, Langevin)):
            raise InputError(f"langevin must be a Langevin or None; got {self.langevin!r}")
