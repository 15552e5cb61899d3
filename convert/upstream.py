"""Reading upstream's checkpoint files, and inferring the architecture.

Source: upstream `pretrain.py` (files), `models/recursive_reasoning/trm.py` (settings and defaults).
"""

import dataclasses
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes
import numpy as np
import yaml

from convert.mapping import (
    EMBED_POS,
    ConversionError,
    State,
    canonical_name,
    check_architecture,
    read_architecture,
)
from ptrm_jax.config import ModelConfig, swiglu_width

# --- Finding the files ---------------------------------------------------------------------------

CONFIG_NAME = "all_config.yaml"
DATASET_PLACES = tuple(
    f"{folder}dataset.json" for folder in ("", "data/test/", "data/train/", "data/")
)
_STEP = re.compile(r"step_(\d+)")
_WEIGHTS = (".pt", ".pth", ".safetensors")


@dataclasses.dataclass(frozen=True)
class Source:
    """Local files of one checkpoint.

    Attributes:
      file: the weights.
      kind: "run folder", "file" or "hub".
      name: its name in records, without local folders.
      step: number of optimiser steps, if the file name contains it.
      config: `all_config.yaml`, or None.
      dataset: `dataset.json`, or None.
    """

    file: Path
    kind: str
    name: str
    step: int | None
    config: Path | None
    dataset: Path | None


def find_checkpoint(
    source: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | None = None,
    dataset: str | os.PathLike[str] | None = None,
) -> Source:
    """Finds the files of a checkpoint: the weights, and the settings beside them.

    Args:
      source: a file; a run folder, for its highest `step_<n>` or its only .pt, .pth or
        .safetensors file; or `hf://owner/name[@revision][/file]` on the Hugging Face hub.
      config: path of `all_config.yaml`; by default beside the weights.
      dataset: path of `dataset.json`; by default beside the weights or in data/test, data/train
        or data there.

    Raises:
      ConversionError: no checkpoint, or several; `config` or `dataset` does not exist.
    """
    text = os.fspath(source)
    if text.startswith("hf://"):
        found = _find_on_hub(text)
    else:
        path = Path(source)
        if path.is_dir():
            files = [entry.name for entry in path.iterdir() if entry.is_file()]
            path, kind = path / _choose(files, text), "run folder"
        elif path.is_file():
            kind = "file"
        else:
            raise ConversionError(f"no checkpoint at {text}: no such file or folder")
        folder = path.parent
        name = path.name if kind == "file" else f"{folder.resolve().name}/{path.name}"
        places = [place for place in (CONFIG_NAME, *DATASET_PLACES) if (folder / place).is_file()]
        found = _source(path, kind, name, places, folder.joinpath)
    for field, stated in (("config", config), ("dataset", dataset)):
        if stated is not None and not Path(stated).is_file():
            raise ConversionError(f"--{field} {os.fspath(stated)}: no such file")
    return dataclasses.replace(
        found,
        config=Path(config) if config is not None else found.config,
        dataset=Path(dataset) if dataset is not None else found.dataset,
    )


def _source(
    file: Path, kind: str, name: str, places: Collection[str], fetch: Callable[[str], Path]
) -> Source:
    step = _STEP.fullmatch(file.stem)
    dataset = next((place for place in DATASET_PLACES if place in places), None)
    return Source(
        file=file,
        kind=kind,
        name=name,
        step=int(step[1]) if step else None,
        config=fetch(CONFIG_NAME) if CONFIG_NAME in places else None,
        dataset=fetch(dataset) if dataset else None,
    )


def _choose(names: Collection[str], source: str) -> str:
    """The highest step among file names, or else the only file of weights."""
    steps = {name: int(m[1]) for name in names if (m := _STEP.fullmatch(PurePosixPath(name).name))}
    if steps and len({PurePosixPath(name).parent for name in steps}) == 1:
        return max(steps, key=steps.__getitem__)
    choices = sorted(steps) or sorted(name for name in names if name.endswith(_WEIGHTS))
    if len(choices) == 1:
        return choices[0]
    if choices:
        raise ConversionError(f"{source} has several checkpoints; pass one of {', '.join(choices)}")
    raise ConversionError(
        f"{source} has no checkpoint: no step_<n> and no {', '.join(_WEIGHTS)} file"
    )


def _find_on_hub(source: str) -> Source:
    match = re.fullmatch(r"hf://([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+))?", source)
    if match is None:
        raise ConversionError(f"{source} must have the form hf://owner/name[@revision][/file]")
    repo, revision, file = match.groups()
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise ConversionError(
            f"{source} needs huggingface_hub: pip install 'ptrm-jax[hub]', or download the files "
            "and pass their folder"
        ) from error

    def fetch(name: str) -> Path:
        return Path(hub.hf_hub_download(repo, name, revision=revision))

    try:
        names = hub.HfApi().list_repo_files(repo, revision=revision)
        file = file or _choose(names, source)
        folder = PurePosixPath(file).parent
        places = [p for p in (CONFIG_NAME, *DATASET_PLACES) if str(folder / p) in names]
        return _source(
            fetch(file),
            "hub",
            f"hf://{repo}@{revision or 'main'}/{file}",
            places,
            lambda place: fetch(str(folder / place)),
        )
    except ConversionError:
        raise
    except Exception as error:  # of huggingface_hub, requests or httpx, depending on the version
        raise ConversionError(
            f"{source} cannot be read from the hub: {_first_line(error)}; check the name and the "
            "connection, or download the files and pass their folder"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


# --- Reading the files ---------------------------------------------------------------------------


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state(path: str | os.PathLike[str], *, entry: str | None = None) -> dict[str, np.ndarray]:
    """Reads the tensors of a checkpoint file.

    `.safetensors` files are read without PyTorch, others with `torch.load`, restricted to tensors
    and plain containers.

    Args:
      path: the file.
      entry: path of the state within the file, e.g. "ema" or "trainer.model_state_dict"; needed
        only if the file has several.

    Returns:
      Canonical name to array, in the file's dtypes.

    Raises:
      ConversionError: the file is damaged, would run code, has no state or several, or has two
        tensors of the same canonical name.
    """
    path = Path(path)
    read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
    content = read(path)
    states = dict(_states(content))
    if entry is None and len(states) > 1:
        # An optimiser's state has tensors too, but not with a network's names.
        named = {at: state for at, state in states.items() if _looks_like_trm(state)}
        states = named or states
    if entry is not None and entry in states:
        tensors = states[entry]
    elif entry is None and len(states) == 1:
        (tensors,) = states.values()
    elif not states:
        raise ConversionError(f"{path.name} has no tensors: it is not a checkpoint")
    else:
        reason = f"has no entry {entry!r}" if entry is not None else "has several states"
        entries = ", ".join(repr(at) for at in states)
        raise ConversionError(f"{path.name} {reason}; pass --entry, one of {entries}")
    counts = Counter(map(canonical_name, tensors))
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise ConversionError(
            f"{path.name} has several tensors, with different prefixes, named "
            + ", ".join(repeated)
        )
    return {canonical_name(name): _to_numpy(name, tensor) for name, tensor in tensors.items()}


def _states(content: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Dotted path and tensors of every mapping, within nested mappings, that has tensors."""
    if not isinstance(content, Mapping):
        return
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and hasattr(v, "dtype")}
    if tensors:
        yield at, tensors
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _states(value, f"{at}.{key}".lstrip("."))


def _looks_like_trm(state: Mapping[str, Any]) -> bool:
    try:
        check_architecture({canonical_name(name): value for name, value in state.items()})
    except ConversionError:
        return False
    return True


_SAFETENSORS_DTYPES: Mapping[str, Any] = {
    f"{letter}{bits}": np.dtype(f"{kind}{bits}")
    for letter, kind in (("F", "float"), ("I", "int"), ("U", "uint"))
    for bits in (64, 32, 16, 8)
    if (letter, bits) != ("F", 8)
} | {"BF16": ml_dtypes.bfloat16, "BOOL": np.bool_}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        import safetensors
    except ImportError as error:
        raise ConversionError(
            f"{path.name} needs safetensors: pip install 'ptrm-jax[convert]'"
        ) from error
    try:
        # Not `safetensors.numpy`, which does not support bfloat16.
        tensors = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ConversionError(f"{path.name} is damaged: {_first_line(error)}") from error
    unknown = sorted({t["dtype"] for _, t in tensors} - _SAFETENSORS_DTYPES.keys())
    if unknown:
        raise ConversionError(
            f"{path.name} has tensors of dtype {', '.join(unknown)}; expected one of "
            + ", ".join(_SAFETENSORS_DTYPES)
        )
    return {
        name: np.frombuffer(t["data"], _SAFETENSORS_DTYPES[t["dtype"]]).reshape(t["shape"])
        for name, t in tensors
    }


def _read_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ConversionError(
            f"reading {path.name} needs PyTorch: pip install 'ptrm-jax[convert]'; .safetensors "
            "files do not"
        ) from error
    import pickle
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual pickle protocols, which raise as well
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        match = re.search(r"unsupported (GLOBAL \S+)|(Unsupported [^\n]+)", str(error))
        what = f" ({match[1] or match[2]})" if match else ""
        raise ConversionError(
            f"{path.name} is refused: it contains more than tensors{what}, and unpickling that can "
            "execute arbitrary code; nothing was executed; obtain a plain state_dict or a "
            ".safetensors file"
        ) from error
    except Exception as error:  # RuntimeError, EOFError, KeyError and others, from damaged bytes
        raise ConversionError(
            f"{path.name} is damaged or not a PyTorch checkpoint: {_first_line(error)}"
        ) from error


def _to_numpy(name: str, tensor: Any) -> np.ndarray:
    if isinstance(tensor, np.ndarray):
        return tensor
    import torch

    try:
        if tensor.dtype == torch.bfloat16:  # numpy has no bfloat16: reinterpret the bits
            bits = tensor.detach().contiguous().view(torch.uint16).numpy()
            return bits.view(ml_dtypes.bfloat16)
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise ConversionError(
            f"tensor {name} ({tensor.dtype}, {tensor.layout}) is not a plain array of numbers"
        ) from error


def read_config(path: Path) -> dict[str, Any]:
    """Reads an `all_config.yaml`.

    Raises:
      ConversionError: it is not YAML, or has no `arch` section.
    """
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConversionError(f"{path.name} is not readable YAML: {reason}") from error
    if not isinstance(config, dict) or not isinstance(config.get("arch"), dict):
        raise ConversionError(f"{path.name} must have a section `arch`, as upstream writes")
    return config


def read_dataset(path: Path) -> dict[str, Any]:
    """Reads a `dataset.json`.

    Raises:
      ConversionError: it is not a JSON object.
    """
    try:
        dataset = json.loads(path.read_text())
    except ValueError as error:
        raise ConversionError(f"{path.name} is not readable JSON: {error}") from error
    if not isinstance(dataset, dict):
        raise ConversionError(f"{path.name} must be a JSON object; got {type(dataset).__name__}")
    return dataset


# --- The architecture ----------------------------------------------------------------------------

TENSORS, CONFIG, DATASET = "the tensors", CONFIG_NAME, "dataset.json"

# Settings of `arch` that do not change what the network computes at evaluation. TRM never reads
# `H_layers`, which is left over from HRM.
_IGNORED = set(
    "name loss halt_max_steps halt_exploration_prob no_ACT_continue H_layers batch_size".split()
)
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

    def add(
        self, field: str, value: Any, source: str, parse: Callable[[Any], Any] = lambda x: x
    ) -> None:
        try:
            parsed = parse(value)
        except (TypeError, ValueError):
            kind = parse.__name__.strip("_").replace("_", " ")
            self.problems.append(f"{field} must be a {kind} in {source}; got {value!r}")
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
        evidence.add(field, value, f"{TENSORS} ({tensor})")
    for field in ("seq_len", "vocab_size", "num_puzzle_identifiers"):
        if dataset is not None and field in dataset:
            evidence.add(field, dataset[field], DATASET, _whole_number)
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
    missing = [field for field in _FIELDS if field not in evidence.votes]
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

    positions = "none"  # upstream: anything else means none
    if arch.get("pos_encodings") == "learned":
        positions = "learned"
    elif arch.get("pos_encodings") == "rope" and evidence.get("variant") != "mlp_t":
        positions = "rope"
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
        evidence.add("positions", positions, source("pos_encodings"))

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

    handled = parsers.keys() | {"pos_encodings", "puzzle_emb_len", "expansion"}
    if unknown := sorted(arch.keys() - handled - _IGNORED):
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
