"""Inferring the architecture of an upstream checkpoint.

Source: upstream `models/recursive_reasoning/trm.py`, for the settings and their defaults.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from convert.mapping import EMBED_POS, ConversionError, State, check_architecture, read_architecture
from ptrm_jax.config import ModelConfig, swiglu_width
from ptrm_jax.reading import shown

CONFIG = "all_config.yaml"

# Settings of `arch` that do not change what the network computes at evaluation. TRM never reads
# `H_layers`, which is left over from HRM.
_IGNORED = set(
    "name loss halt_max_steps halt_exploration_prob no_ACT_continue H_layers batch_size".split()
)
_POSITIONS = ("rope", "learned", "none", None)
_SIBLINGS = {
    "hrm": "Hierarchical Reasoning Model",
    "hierarchical": "Hierarchical Reasoning Model",
    "trm_singlez": "TRM with a single latent",
    "trm_hier6": "TRM with six latents",
    "transformers_baseline": "Transformer baseline",
}
_HAVE_FLAGS = (
    "H_cycles L_cycles num_heads positions seq_len prefix_len forward_dtype rms_norm_eps rope_theta"
).split()
# Upstream's Q head always reads the first position.
_FIELDS = tuple(f.name for f in dataclasses.fields(ModelConfig) if f.name != "q_pooling")


def flag(field: str) -> str:
    """The command-line flag for a field of `ModelConfig`."""
    return "--" + field.lower().replace("_", "-")


class _Evidence:
    """The value of each field according to each source, to find contradictions."""

    def __init__(self) -> None:
        self.votes: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        self.unknown: set[str] = set()  # fields with a value that is refused

    def add(
        self, field: str, value: Any, source: str, parse: Callable[[Any], Any] = lambda x: x
    ) -> None:
        try:
            parsed = parse(value)
        except (TypeError, ValueError, OverflowError):
            kind = parse.__name__.strip("_").replace("_", " ")
            self.problems.append(f"{field} must be a {kind} in {source}; got {shown(value)}")
        else:
            self.votes.setdefault(field, {})[source] = parsed

    def default(self, field: str, value: Any, source: str = "upstream's default") -> None:
        if field not in self.votes:
            self.add(field, value, source)

    def get(self, field: str) -> Any:
        """The value according to the first source, or None."""
        return next(iter(self.votes.get(field, {}).values()), None)

    def source(self, field: str) -> str:
        return next(iter(self.votes[field]))

    def contradictions(self) -> list[str]:
        return [
            f"{field} is "
            + " but ".join(f"{value} according to {source}" for source, value in votes.items())
            for field, votes in self.votes.items()
            if len(set(votes.values())) > 1
        ]


def infer_config(
    state: State,
    config: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
) -> tuple[ModelConfig, dict[str, str]]:
    """Infers the architecture of a checkpoint from all available sources.

    The tensors, `all_config.yaml`, `dataset.json` and the caller must agree on every field that
    several of them determine; nothing is guessed.

    Args:
      state: canonical name to array, as `read_state` returns it.
      config: the content of `all_config.yaml`.
      dataset: the content of `dataset.json`.
      given: fields of `ModelConfig` by name, stated by the caller.

    Returns:
      The architecture, and the sources of each of its fields.

    Raises:
      ConversionError: it is another architecture, an `arch` setting is not known, or fields are
        contradictory or undetermined; the message lists all of them, with the flags to pass.
    """
    given = {name: value for name, value in (given or {}).items() if value is not None}
    if unknown := sorted(given.keys() - set(_FIELDS)):
        raise ConversionError(f"not fields of ModelConfig: {', '.join(unknown)}")
    if config is not None:
        _check_name(config["arch"].get("name"))
    check_architecture(state)

    evidence = _Evidence()
    facts = read_architecture(state)
    for field, (value, tensor) in facts.items():
        evidence.add(field, value, f"the tensors ({tensor})")
    for field in ("seq_len", "vocab_size", "num_puzzle_identifiers"):
        if dataset is not None and field in dataset:
            evidence.add(field, dataset[field], "dataset.json", _whole_number)
    for field, value in given.items():
        evidence.add(field, value, flag(field))
    if config is not None:
        _add_arch(evidence, config["arch"])
    _relate_lengths(evidence)
    if evidence.get("positions") == "learned" and "positions" not in facts:
        evidence.problems.append(
            f"positions is learned according to {evidence.source('positions')} but there is no "
            f"{EMBED_POS}"
        )
    for field in ("rms_norm_eps", "rope_theta", "num_puzzle_identifiers"):
        evidence.default(field, ModelConfig.__dataclass_fields__[field].default)
    if evidence.get("variant") == "mlp_t":
        evidence.default("num_heads", 1, "mlp_t has no heads")

    problems = evidence.problems + evidence.contradictions()
    missing = [f for f in _FIELDS if f not in evidence.votes and f not in evidence.unknown]
    if missing:
        fields = [
            f"{field} ({flag(field) if field in _HAVE_FLAGS else 'no tensor'})" for field in missing
        ]
        problems.append(
            f"nothing determines {', '.join(fields)}; pass these flags, or --config {CONFIG}"
            + (" and --dataset dataset.json" if dataset is None else "")
        )
    if problems:
        raise ConversionError("the architecture is not determined: " + "; ".join(problems))
    try:
        result = ModelConfig(**{field: evidence.get(field) for field in _FIELDS})
    except ValueError as error:
        raise ConversionError(f"the architecture is inconsistent: {error}") from error
    return result, {field: " and ".join(evidence.votes[field]) for field in _FIELDS}


def _check_name(name: Any) -> None:
    """Refuses any `arch.name` (`folder.module@Class`) but that of upstream's trm.py."""
    if name is None:
        return
    module = str(name).split("@")[0].split(".")[-1]
    if module == "trm":
        return
    sibling = next((text for key, text in _SIBLINGS.items() if key in str(name).lower()), None)
    raise ConversionError(
        f"arch.name {name!r} is a {sibling}, which cannot be converted; pass a TRM checkpoint"
        if sibling
        else f"arch.name {name!r} may not compute the same as upstream's trm.py; if it does, "
        "remove `name` from a copy of all_config.yaml and pass that as --config"
    )


def _whole_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)  # YAML parses 1e-5, without a dot, as a string


def _boolean(value: Any) -> str:
    if not isinstance(value, bool):
        raise TypeError
    return "mlp_t" if value else "attention"


def _supported_dtype(value: Any) -> str:
    if value not in ("float32", "bfloat16"):
        raise ValueError
    return value


def _add_arch(evidence: _Evidence, arch: Mapping[str, Any]) -> None:
    """Adds the settings in `arch` of all_config.yaml, and upstream's defaults for omitted ones."""

    def source(key: str) -> str:
        return f"{CONFIG} ({key})" if key in arch else f"upstream's default ({key})"

    same_name = "H_cycles L_cycles hidden_size num_heads seq_len vocab_size num_puzzle_identifiers"
    parsers: dict[str, tuple[str, Callable[[Any], Any], Any]] = {
        **{key: (key, _whole_number, None) for key in same_name.split()},
        "L_layers": ("num_layers", _whole_number, None),
        "puzzle_emb_ndim": ("puzzle_emb_ndim", _whole_number, 0),
        "rms_norm_eps": ("rms_norm_eps", _number, 1e-5),
        "rope_theta": ("rope_theta", _number, 10000.0),
        "forward_dtype": ("forward_dtype", _supported_dtype, "bfloat16"),
        "mlp_t": ("variant", _boolean, False),
    }
    for key, (field, parse, default) in parsers.items():
        value = arch.get(key, default)
        superseded = key not in arch and field in evidence.votes  # a default never contradicts
        if value is not None and not superseded:
            evidence.add(field, value, source(key), parse)
    if "pos_encodings" in arch:
        positions = arch["pos_encodings"]
        if positions not in _POSITIONS:
            # Upstream takes anything else for none, but forks give other encodings its class name.
            evidence.unknown.add("positions")
            evidence.problems.append(
                f"{CONFIG} has an unknown value of pos_encodings, {positions!r}, which may change "
                f"the computation; TRM knows {', '.join(filter(None, _POSITIONS))}"
            )
        elif positions == "rope" and evidence.get("variant") == "mlp_t":
            evidence.add("positions", "none", source("pos_encodings"))  # nothing rotates
        else:
            evidence.add("positions", positions or "none", source("pos_encodings"))
    if arch.get("causal", False) is not False:
        evidence.problems.append(
            f"{CONFIG} has causal {arch['causal']!r}; TRM's attention is not causal"
        )

    rows, h = arch.get("puzzle_emb_len", 16), evidence.get("hidden_size")
    ndim = evidence.get("puzzle_emb_ndim")
    if "puzzle_emb_len" in arch or ndim:
        if rows != 0:
            evidence.add("prefix_len", rows, source("puzzle_emb_len"), _whole_number)
        elif ndim is not None and h:
            evidence.add("prefix_len", -(-ndim // h), source("puzzle_emb_len"))
    if "expansion" in arch:
        for field, size in (("mlp_width", h), ("mlp_t_width", evidence.get("length"))):
            if size and not (field == "mlp_t_width" and evidence.get("variant") != "mlp_t"):
                evidence.add(field, arch["expansion"], source("expansion"), _width_of(size))

    handled = parsers.keys() | {"pos_encodings", "puzzle_emb_len", "expansion", "causal"}
    if unknown := sorted(str(key)[:99] for key in arch.keys() - handled - _IGNORED):
        evidence.problems.append(
            f"{CONFIG} has unknown arch settings, which may change the computation: "
            + ", ".join(unknown)
        )


def _width_of(size: int) -> Callable[[Any], int]:
    def number(expansion: Any) -> int:
        return swiglu_width(size, _number(expansion))

    return number


def _relate_lengths(evidence: _Evidence) -> None:
    """Derives one of L = P + S from the other two, or checks all three."""
    length, prefix, tokens = (evidence.get(name) for name in ("length", "prefix_len", "seq_len"))
    if length is None:
        return
    source = evidence.source("length")
    if prefix is None and tokens is not None:
        evidence.add("prefix_len", length - tokens, f"L = {length} by {source}, less seq_len")
    elif tokens is None and prefix is not None:
        evidence.add("seq_len", length - prefix, f"L = {length} by {source}, less prefix_len")
    elif prefix is not None and tokens is not None and prefix + tokens != length:
        evidence.problems.append(
            f"prefix_len {prefix} according to {evidence.source('prefix_len')} and seq_len "
            f"{tokens} according to {evidence.source('seq_len')} make {prefix + tokens} positions, "
            f"but there are {length} according to {source}"
        )
