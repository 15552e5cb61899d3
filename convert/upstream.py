"""Reading what upstream training leaves behind: the checkpoint file, its settings, its data set.

Source: upstream `pretrain.py` (what is saved where), `models/recursive_reasoning/trm.py` (the
settings and their defaults).
"""

import dataclasses
import hashlib
import json
import os
import re
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
    """Files of one checkpoint, on this machine.

    Attributes:
      file: the weights.
      kind: "run folder", "file" or "hub".
      name: what to call it in a record, without the folders of this machine.
      step: number of optimiser steps, where the file's name says it.
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
    """The files of a checkpoint: its weights, and the settings found beside them.

    Args:
      source: a run folder (its highest `step_<n>` is taken, or else its only .pt, .pth or
        .safetensors), a file, or `hf://owner/name[@revision][/file]` on the Hugging Face hub.
      config: path of `all_config.yaml`, where it is not beside the weights.
      dataset: path of `dataset.json`, where it is neither there nor in data/test, data/train or
        data below.

    Raises:
      ConversionError: nothing there, or no single choice.
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
    given = {"config": config, "dataset": dataset}
    given = {field: Path(path) for field, path in given.items() if path is not None}
    for field, path in given.items():
        if not path.is_file():
            raise ConversionError(f"--{field} {path}: no such file")
    return dataclasses.replace(found, **given)


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
    """The one checkpoint among file names: the highest step, or the only file of weights."""
    steps = {name: int(m[1]) for name in names if (m := _STEP.fullmatch(PurePosixPath(name).name))}
    if steps and len({PurePosixPath(name).parent for name in steps}) == 1:
        return max(steps, key=steps.__getitem__)
    choices = sorted(steps) or sorted(name for name in names if name.endswith(_WEIGHTS))
    if len(choices) == 1:
        return choices[0]
    if choices:
        raise ConversionError(f"{source} holds several checkpoints, name one: {', '.join(choices)}")
    raise ConversionError(
        f"{source} holds no checkpoint: no step_<n> and no {', '.join(_WEIGHTS)} file"
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
            "and give their folder"
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
    except Exception as error:  # the hub's own, requests' and httpx's, depending on its version
        raise ConversionError(
            f"{source} cannot be read from the hub: {_first_line(error)}; check the name and the "
            "connection, or download the files and give their folder"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


# --- Reading the files ---------------------------------------------------------------------------


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state(path: str | os.PathLike[str], *, entry: str | None = None) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint file by canonical name, in the dtypes of the file.

    A `.safetensors` file is read without PyTorch, anything else with `torch.load`, whose
    unpickler builds tensors and plain containers and nothing else.

    Args:
      path: the file.
      entry: where the state lies in a file that holds several, e.g. "ema" or
        "trainer.model_state_dict"; it is found where there is one.

    Raises:
      ConversionError: a damaged file, one that asks to run code, one without a state, with
        several, or with a name twice.
    """
    path = Path(path)
    read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
    content = read(path)
    states = dict(_states(content))
    if entry is None and len(states) > 1:
        # An optimiser's state has tensors too, but not a network's names.
        named = {at: state for at, state in states.items() if _looks_like_trm(state)}
        states = named or states
    if entry is not None and entry in states:
        tensors = states[entry]
    elif entry is None and len(states) == 1:
        (tensors,) = states.values()
    elif not states:
        raise ConversionError(f"{path.name} holds no tensors: it is not a checkpoint")
    else:
        reason = f"has no entry {entry!r}" if entry is not None else "holds several states"
        entries = ", ".join(repr(at) for at in states)
        raise ConversionError(f"{path.name} {reason}; choose with --entry, from: {entries}")
    result: dict[str, np.ndarray] = {}
    doubled = []
    for name, tensor in tensors.items():
        canonical = canonical_name(name)
        doubled += [canonical] if canonical in result else []
        result[canonical] = _to_numpy(name, tensor)
    if doubled:
        raise ConversionError(
            f"{path.name} holds tensors twice, under different prefixes: {', '.join(doubled)}"
        )
    return result


def _states(content: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping within nested mappings that holds tensors directly, by its dotted place."""
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


_SAFETENSORS_DTYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16},
    **{"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8},
    **{"U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_},
}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        import safetensors
    except ImportError as error:
        raise ConversionError(
            f"{path.name} needs safetensors: pip install 'ptrm-jax[convert]'"
        ) from error
    try:
        # Not `safetensors.numpy`, which knows no bfloat16.
        tensors = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ConversionError(f"{path.name} is damaged: {_first_line(error)}") from error
    unknown = sorted({t["dtype"] for _, t in tensors} - _SAFETENSORS_DTYPES.keys())
    if unknown:
        raise ConversionError(
            f"{path.name} holds tensors of dtype {', '.join(unknown)}; expected one of "
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
            f"{path.name} needs PyTorch to be read: pip install 'ptrm-jax[convert]'; a "
            ".safetensors file does not"
        ) from error
    import pickle
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickle protocols, which fail by themselves
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"unsupported (GLOBAL \S+)|(Unsupported [^\n]+)", str(error))
        what = f" ({asked[1] or asked[2]})" if asked else ""
        raise ConversionError(
            f"{path.name} is refused: it asks for more than tensors{what}, and unpickling that can "
            "run any code; nothing of it was run; ask for a bare state_dict or a .safetensors file"
        ) from error
    except Exception as error:  # RuntimeError, EOFError, KeyError, ...: whatever bad bytes cause
        raise ConversionError(
            f"{path.name} is damaged or not a PyTorch checkpoint: {_first_line(error)}"
        ) from error


def _to_numpy(name: str, tensor: Any) -> np.ndarray:
    if isinstance(tensor, np.ndarray):
        return tensor
    import torch

    try:
        if tensor.dtype == torch.bfloat16:  # numpy has none: the same bits by another name
            bits = tensor.detach().contiguous().view(torch.uint16).numpy()
            return bits.view(ml_dtypes.bfloat16)
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise ConversionError(
            f"tensor {name} ({tensor.dtype}, {tensor.layout}) is not a plain array of numbers"
        ) from error


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in an `all_config.yaml`.

    Raises:
      ConversionError: not YAML, or without an `arch` section.
    """
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConversionError(f"{path.name} is not readable YAML: {reason}") from error
    if not isinstance(config, dict) or not isinstance(config.get("arch"), dict):
        raise ConversionError(f"{path.name} must have a section `arch`, as upstream writes it")
    return config


def read_dataset(path: Path) -> dict[str, Any]:
    """The mapping in a `dataset.json`.

    Raises:
      ConversionError: not a JSON object.
    """
    try:
        dataset = json.loads(path.read_text())
    except ValueError as error:
        raise ConversionError(f"{path.name} is not readable JSON: {error}") from error
    if not isinstance(dataset, dict):
        raise ConversionError(f"{path.name} must hold a JSON object; got {type(dataset).__name__}")
    return dataset


# --- The architecture ----------------------------------------------------------------------------

TENSORS, CONFIG, DATASET = "the tensors", CONFIG_NAME, "dataset.json"

# Settings of `arch` that do not change what the network computes at evaluation. `H_layers` is a
# remainder of HRM, which TRM never reads.
_IGNORED = {
    *("name", "loss", "halt_max_steps", "halt_exploration_prob", "no_ACT_continue", "H_layers"),
    "batch_size",
}
_SIBLINGS = {
    "hrm": "Hierarchical Reasoning Model",
    "hierarchical": "Hierarchical Reasoning Model",
    "trm_singlez": "TRM with a single latent",
    "trm_hier6": "TRM with six latents",
    "transformers_baseline": "Transformer baseline",
}
_UNDECIDED_BY_TENSORS = (
    *("H_cycles", "L_cycles", "num_heads", "positions", "seq_len", "prefix_len"),
    *("forward_dtype", "rms_norm_eps", "rope_theta"),
)
# Upstream's Q head reads the first position, always.
_FIELDS = tuple(f.name for f in dataclasses.fields(ModelConfig) if f.name != "q_pooling")


def flag(field: str) -> str:
    """The command-line flag that states a field of `ModelConfig`."""
    return "--" + field.lower().replace("_", "-")


class _Evidence:
    """What each source says about each field; all of it is kept, so that all of it can disagree."""

    def __init__(self) -> None:
        self.votes: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []

    def add(self, field: str, value: Any, source: str) -> None:
        self.votes.setdefault(field, {})[source] = value

    def default(self, field: str, value: Any, source: str = "upstream's default") -> None:
        if field not in self.votes:
            self.add(field, value, source)

    def get(self, field: str) -> Any:
        """The first source's value, or None."""
        return next(iter(self.votes.get(field, {}).values()), None)

    def source(self, field: str) -> str:
        return next(iter(self.votes[field]))

    def contradictions(self) -> list[str]:
        return [
            f"{field} is " + " but ".join(f"{value} by {source}" for source, value in votes.items())
            for field, votes in self.votes.items()
            if len(set(votes.values())) > 1
        ]


def infer_config(
    state: State,
    config: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
) -> tuple[ModelConfig, dict[str, str]]:
    """The architecture of a checkpoint, from everything that says something about it.

    Tensors, `all_config.yaml`, `dataset.json` and what the caller states must agree wherever two
    of them speak; nothing is guessed.

    Args:
      state: canonical name to array, as `read_state` returns it.
      config: the content of `all_config.yaml`.
      dataset: the content of `dataset.json`.
      given: fields of `ModelConfig` by name, stated by the caller.

    Returns:
      The architecture, and where each of its fields comes from.

    Raises:
      ConversionError: another architecture; an `arch` setting that is not known; every
        contradiction; every field that nothing decides, with the flag that states it.
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
            _add(evidence, field, dataset[field], DATASET, _whole)
    for field, value in given.items():
        evidence.add(field, value, flag(field))
    if config is not None:
        _add_arch(evidence, config["arch"])
    _relate_lengths(evidence)
    if evidence.get("positions") == "learned" and "positions" not in facts:
        evidence.problems.append(
            f"positions is learned by {evidence.source('positions')} but there is no {EMBED_POS}"
        )
    for field in ("rms_norm_eps", "rope_theta", "num_puzzle_identifiers"):
        evidence.default(field, ModelConfig.__dataclass_fields__[field].default)
    if evidence.get("variant") == "mlp_t":
        evidence.default("num_heads", 1, "mlp_t has no heads")

    problems = evidence.problems + evidence.contradictions()
    missing = [field for field in _FIELDS if field not in evidence.votes]
    if missing:
        asked = [
            f"{field} ({flag(field)})" if field in _UNDECIDED_BY_TENSORS else f"{field} (no tensor)"
            for field in missing
        ]
        problems.append(
            f"nothing decides {', '.join(asked)}; give the flags named, or --config {CONFIG}"
            + (" and --dataset dataset.json" if dataset is None else "")
        )
    if problems:
        raise ConversionError("the architecture is not certain: " + "; ".join(problems))
    try:
        result = ModelConfig(**{field: evidence.get(field) for field in _FIELDS})
    except ValueError as error:
        raise ConversionError(f"the architecture does not fit together: {error}") from error
    return result, {field: " and ".join(evidence.votes[field]) for field in _FIELDS}


def _check_name(name: Any) -> None:
    """Refuses `arch.name` (`folder.module@Class`) of anything but upstream's trm.py."""
    if name is None:
        return
    module = str(name).split("@")[0].split(".")[-1]
    if module == "trm":
        return
    sibling = next((text for key, text in _SIBLINGS.items() if key in str(name).lower()), None)
    raise ConversionError(
        f"arch.name {name!r} is a {sibling}, not a TRM; it computes something else"
        if sibling
        else f"arch.name {name!r} is not known to compute what upstream's trm.py computes; if it "
        "does, remove `name` from a copy of all_config.yaml and pass that as --config"
    )


def _add(
    evidence: _Evidence, field: str, value: Any, source: str, parse: Callable[[Any], Any]
) -> None:
    try:
        evidence.add(field, parse(value), source)
    except (TypeError, ValueError):
        kind = parse.__name__.strip("_").replace("_", " ")
        evidence.problems.append(f"{field} must be a {kind} in {source}; got {value!r}")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)  # a string too: YAML reads 1e-5, without a dot, as one


def _yes_or_no(value: Any) -> str:
    if not isinstance(value, bool):
        raise TypeError
    return "mlp_t" if value else "attention"


def _dtype(value: Any) -> str:
    if value not in ("float32", "bfloat16"):
        raise ValueError
    return value


def _add_arch(evidence: _Evidence, arch: Mapping[str, Any]) -> None:
    """What `arch` in all_config.yaml says, with upstream's defaults for what it omits."""

    def source(key: str) -> str:
        return f"{CONFIG} ({key})" if key in arch else f"upstream's default ({key})"

    positions = "none"  # upstream: anything else means none
    if arch.get("pos_encodings") == "learned":
        positions = "learned"
    elif arch.get("pos_encodings") == "rope" and evidence.get("variant") != "mlp_t":
        positions = "rope"
    plain = {
        **{key: (key, _whole) for key in ("H_cycles", "L_cycles", "hidden_size", "num_heads")},
        **{key: (key, _whole) for key in ("seq_len", "vocab_size", "num_puzzle_identifiers")},
        "L_layers": ("num_layers", _whole),
        "puzzle_emb_ndim": ("puzzle_emb_ndim", _whole),
        "rms_norm_eps": ("rms_norm_eps", _number),
        "rope_theta": ("rope_theta", _number),
        "forward_dtype": ("forward_dtype", _dtype),
        "mlp_t": ("variant", _yes_or_no),
    }
    defaults = {
        **{"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "forward_dtype": "bfloat16"},
        **{"mlp_t": False, "puzzle_emb_ndim": 0},
    }
    for key, (field, parse) in plain.items():
        value = arch.get(key, defaults.get(key))
        stated = field in evidence.votes and key not in arch  # a default never contradicts
        if value is not None and not stated:
            _add(evidence, field, value, source(key), parse)
    if "pos_encodings" in arch:
        evidence.add("positions", positions, source("pos_encodings"))

    rows, h = arch.get("puzzle_emb_len", 16), evidence.get("hidden_size")
    ndim = evidence.get("puzzle_emb_ndim")
    if "puzzle_emb_len" in arch or ndim:
        if rows != 0:
            _add(evidence, "prefix_len", rows, source("puzzle_emb_len"), _whole)
        elif ndim is not None and h:
            evidence.add("prefix_len", -(-ndim // h), source("puzzle_emb_len"))
    if "expansion" in arch:
        for field, size in (("mlp_width", h), ("mlp_t_width", evidence.get("length"))):
            if size and not (field == "mlp_t_width" and evidence.get("variant") != "mlp_t"):
                _add(evidence, field, arch["expansion"], source("expansion"), _width_of(size))

    handled = {*plain, "pos_encodings", "puzzle_emb_len", "expansion"}
    if unknown := sorted(arch.keys() - handled - _IGNORED):
        evidence.problems.append(
            f"{CONFIG} has arch settings that are not known to leave the computation as it is: "
            + ", ".join(unknown)
        )


def _width_of(size: int) -> Callable[[Any], int]:
    def number(expansion: Any) -> int:
        return swiglu_width(size, _number(expansion))

    return number


def _relate_lengths(evidence: _Evidence) -> None:
    """L = P + S: derives the third of them from two, and checks all three."""
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
            f"prefix_len {prefix} by {evidence.source('prefix_len')} and seq_len {tokens} by "
            f"{evidence.source('seq_len')} make {prefix + tokens} positions but {source} has "
            f"{length}"
        )
