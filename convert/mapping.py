"""The port as a table: upstream's tensor names and layouts, and our parameter paths.

Only this module knows upstream's names. Its functions take states with canonical names, that is,
without the prefixes that training wrappers add (`canonical_name`).

Source: upstream `models/recursive_reasoning/trm.py`, `models/layers.py`,
`models/sparse_embedding.py` (SamsungSAILMontreal/TinyRecursiveModels).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from ptrm_jax.config import ModelConfig
from ptrm_jax.errors import InputError, mismatches
from ptrm_jax.model import Params

State = Mapping[str, np.ndarray]

# The loss head, and the model around the network.
PREFIXES = ("model.", "inner.")
# torch.compile, data-parallel, FSDP, activation checkpointing, DeepSpeed; anywhere in a name.
WRAPPERS = frozenset(
    "_orig_mod module _fsdp_wrapped_module _checkpoint_wrapped_module _forward_module".split()
)

H_INIT, L_INIT = "H_init", "L_init"
EMBED_TOKENS = "embed_tokens.embedding_weight"
EMBED_POS = "embed_pos.embedding_weight"
PUZZLE_EMB = "puzzle_emb.weights"
LM_HEAD = "lm_head.weight"
Q_WEIGHT, Q_BIAS = "q_head.weight", "q_head.bias"
LAYERS = "L_level.layers."
QKV, OUT = "self_attn.qkv_proj", "self_attn.o_proj"
MLP_T_UP, MLP_T_DOWN = "mlp_t.gate_up_proj", "mlp_t.down_proj"
MLP_UP, MLP_DOWN = "mlp.gate_up_proj", "mlp.down_proj"
BUFFERS = (H_INIT, L_INIT, PUZZLE_EMB)
"""Tensors that are not parameters in PyTorch, so that averages of parameters lack them."""


class ConversionError(InputError):
    """A checkpoint that cannot be converted."""


def layer_weight(i: int, part: str) -> str:
    """Upstream's name of the weight of `part` in block i."""
    return f"{LAYERS}{i}.{part}.weight"


def unwrapped(name: str) -> str:
    """`name` without the levels that wrappers of modules add."""
    return ".".join(level for level in name.split(".") if level not in WRAPPERS)


def canonical_name(name: str) -> str:
    """`unwrapped`, and without leading `PREFIXES`, of any number and in any order."""
    name = unwrapped(name)
    while prefix := next((p for p in PREFIXES if name.startswith(p)), ""):
        name = name.removeprefix(prefix)
    return name


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of the port.

    Attributes:
      upstream: canonical upstream name.
      path: path of our parameter, its levels separated by "/".
      shape: shape of the upstream tensor; linear weights are (out, in).
      transpose: whether our parameter is the transpose, an [in, out] kernel, rather than a copy.
    """

    upstream: str
    path: str
    shape: tuple[int, ...]
    transpose: bool = False


def table(config: ModelConfig) -> list[Row]:
    """Every tensor of a model, one row per parameter."""
    h, length = config.hidden_size, config.length
    rows = [
        Row(H_INIT, "H_init", (h,)),
        Row(L_INIT, "L_init", (h,)),
        Row(EMBED_TOKENS, "embed_tokens/embedding", (config.vocab_size, h)),
        Row(LM_HEAD, "lm_head/kernel", (config.vocab_size, h), transpose=True),
        Row(Q_WEIGHT, "q_head/kernel", (2, h), transpose=True),
        Row(Q_BIAS, "q_head/bias", (2,)),
    ]
    if config.prefix_len:
        shape = (config.num_puzzle_identifiers, config.puzzle_emb_ndim)
        rows.append(Row(PUZZLE_EMB, "puzzle_emb/embedding", shape))
    if config.positions == "learned":
        rows.append(Row(EMBED_POS, "embed_pos/embedding", (length, h)))
    if config.variant == "mlp_t":
        width = config.mlp_t_width
        parts = {MLP_T_UP: (2 * width, length), MLP_T_DOWN: (length, width)}
    else:
        parts = {QKV: (3 * h, h), OUT: (h, h)}
    parts |= {MLP_UP: (2 * config.mlp_width, h), MLP_DOWN: (h, config.mlp_width)}
    for i in range(config.num_layers):
        for part, shape in parts.items():
            path = f"network/layers_{i}/{part.replace('.', '/')}/kernel"
            rows.append(Row(layer_weight(i, part), path, shape, transpose=True))
    return rows


def port(state: State, config: ModelConfig) -> Params:
    """Converts an upstream state to our parameters.

    Args:
      state: canonical name to array: float32; bfloat16 or float16, which convert to float32
        exactly; or float64, which is rounded.
      config: the architecture.

    Returns:
      Nested dict of float32 arrays.

    Raises:
      ConversionError: tensors are missing, unexpected, misshapen, or hold anything but finite
        floating-point numbers; the message lists all of them.
    """
    rows = {row.upstream: row for row in table(config)}
    problems = mismatches(
        {name: row.shape for name, row in rows.items()},
        {name: value.shape for name, value in state.items()},
        lambda name, want, got: f"{name} has shape {list(got)}, expected {list(want)}",
    )
    params: dict[str, Any] = {}
    for name in rows.keys() & state.keys():
        row, value = rows[name], state[name]
        if not jnp.issubdtype(value.dtype, np.floating):
            problems.append(f"{name} must hold floating-point numbers; got {value.dtype}")
        else:
            with np.errstate(over="ignore"):  # an overflow is reported as not finite
                value = np.array(value.T if row.transpose else value, np.float32, order="C")
            if not np.isfinite(value).all():
                problems.append(f"{name} must be finite in float32; it is not")
            *parents, leaf = row.path.split("/")
            level = params
            for parent in parents:
                level = level.setdefault(parent, {})
            level[leaf] = value
    if problems:
        raise ConversionError(
            "the tensors do not fit this architecture: " + "; ".join(sorted(problems))
        )
    return params


def to_upstream(params: Params, config: ModelConfig) -> dict[str, np.ndarray]:
    """Inverts `port`.

    Args:
      params: nested dict with the shapes of `config` (`ptrm_jax.solver.check_params`).
      config: the architecture.

    Returns:
      Canonical upstream name to float32 array; linear weights are (out, in).
    """

    def leaf(row: Row) -> np.ndarray:
        value = params
        for part in row.path.split("/"):
            value = value[part]
        value = np.asarray(value, np.float32)
        return np.ascontiguousarray(value.T) if row.transpose else value

    return {row.upstream: leaf(row) for row in table(config)}


# --- What the tensors say about the architecture -------------------------------------------------


def check_architecture(state: State) -> None:
    """Checks by its tensor names that a state is a TRM's.

    Raises:
      ConversionError: it has no tensors of a TRM, or it has those of an HRM as well.
    """
    if any(name.startswith("H_level.") for name in state):
        raise ConversionError(
            "this is a Hierarchical Reasoning Model (it has an H_level besides the L_level), whose "
            "two networks cannot be converted to the one of a TRM; convert a TRM checkpoint"
        )
    if not any(name.startswith(LAYERS) for name in state):
        names = sorted(state)
        raise ConversionError(
            f"this is not a TRM: no tensor is named {LAYERS}<i>...; it has {len(names)} tensors: "
            + ", ".join(names[:4] + ["..."] * (len(names) > 4))
        )


def read_architecture(state: State) -> dict[str, tuple[Any, str]]:
    """What the tensors alone determine about the architecture.

    Missing tensors determine nothing; `port` reports them.

    Returns:
      Field to (value, tensor that shows it), for fields of `ModelConfig` and for `length`,
      L = P + S.
    """
    facts: dict[str, tuple[Any, str]] = {}

    def fact(field: str, value: Any, name: str) -> None:
        facts.setdefault(field, (value, name))

    def matrix(name: str) -> tuple[int, ...] | None:
        return state[name].shape if name in state and state[name].ndim == 2 else None

    for name in (EMBED_TOKENS, LM_HEAD):
        if shape := matrix(name):
            fact("vocab_size", shape[0], name)
            fact("hidden_size", shape[1], name)
    layers = [name.removeprefix(LAYERS).split(".")[0] for name in state if name.startswith(LAYERS)]
    if numbers := [int(layer) for layer in layers if layer.isdecimal() and len(layer) < 9]:
        fact("num_layers", max(numbers) + 1, f"{LAYERS}{max(numbers)}")
    if shape := matrix(layer_weight(0, MLP_DOWN)):
        fact("mlp_width", shape[1], layer_weight(0, MLP_DOWN))
    if shape := matrix(layer_weight(0, MLP_T_DOWN)):
        name = layer_weight(0, MLP_T_DOWN)
        fact("variant", "mlp_t", name)
        fact("length", shape[0], name)
        fact("mlp_t_width", shape[1], name)
    elif layer_weight(0, QKV) in state:
        fact("variant", "attention", layer_weight(0, QKV))
        fact("mlp_t_width", 0, layer_weight(0, QKV))
    if shape := matrix(EMBED_POS):
        fact("positions", "learned", EMBED_POS)
        fact("length", shape[0], EMBED_POS)
    elif facts.get("variant", ("",))[0] == "mlp_t":
        # Without attention there is nothing to rotate: rope and none are the same model.
        fact("positions", "none", f"no {EMBED_POS}, mlp_t")
    if shape := matrix(PUZZLE_EMB):
        fact("num_puzzle_identifiers", shape[0], PUZZLE_EMB)
        fact("puzzle_emb_ndim", shape[1], PUZZLE_EMB)
    elif PUZZLE_EMB not in state:
        fact("puzzle_emb_ndim", 0, f"no {PUZZLE_EMB}")
        fact("prefix_len", 0, f"no {PUZZLE_EMB}")
    # Upstream keeps the initial states, which are buffers, in the forward dtype, and the weights in
    # float32. If all tensors have the same dtype, the file was cast, and determines nothing.
    buffers = [state[name].dtype for name in (H_INIT, L_INIT) if name in state]
    others = {value.dtype for name, value in state.items() if name not in (H_INIT, L_INIT)}
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    if buffers and set(buffers) == {bfloat16} and bfloat16 not in others:
        fact("forward_dtype", "bfloat16", H_INIT)
    return facts
