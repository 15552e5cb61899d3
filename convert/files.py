"""Finding and reading upstream's checkpoint files.

Source: upstream `pretrain.py`, which writes them.
"""

import dataclasses
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes
import numpy as np

from convert.mapping import ConversionError, canonical_name, check_architecture
from ptrm_jax.reading import (
    MEBIBYTE,
    check_inside,
    file_size,
    read_bytes,
    read_json,
    read_yaml,
    shown,
)

# --- Finding the files ---------------------------------------------------------------------------

CONFIG_NAME = "all_config.yaml"
DATASET_PLACES = tuple(
    f"{folder}dataset.json" for folder in ("", "data/test/", "data/train/", "data/")
)
_STEP = re.compile(r"step_(\d+)")
_DEEPEST = 16
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
        check_inside(file or "any")
    except ValueError as error:
        raise ConversionError(f"{source}: {error}") from None
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
    arrays = {canonical_name(name): _to_numpy(name, tensor) for name, tensor in tensors.items()}
    # Tied weights share their storage; what shares more can be of any size.
    if sum(array.nbytes for array in arrays.values()) > 4 * path.stat().st_size + MEBIBYTE:
        raise ConversionError(f"{path.name} is refused: its tensors are larger than the file")
    return arrays


def _states(
    content: Any, at: str = "", seen: set[int] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Dotted path and tensors of every mapping, within nested mappings, that has tensors.

    A mapping that is in several places, or in itself, is visited once.
    """
    seen = set() if seen is None else seen
    if not isinstance(content, Mapping) or id(content) in seen or at.count(".") > _DEEPEST:
        return
    seen.add(id(content))
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and hasattr(v, "dtype")}
    if tensors:
        yield at, tensors
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _states(value, f"{at}.{str(key)[:99]}".lstrip("."), seen)


def _looks_like_trm(state: Mapping[str, Any]) -> bool:
    try:
        check_architecture({canonical_name(name): value for name, value in state.items()})
    except ConversionError:
        return False
    return True


_LARGEST = 64 * 2**30
"""Bytes of a file of weights; there is no larger TRM."""

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
        tensors = safetensors.deserialize(read_bytes(path, _LARGEST))
    except (safetensors.SafetensorError, ValueError) as error:
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

    _check_archive(path)
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


def _check_archive(path: Path) -> None:
    """Refuses compressed archives, which PyTorch never writes: a small one can hold any size."""
    try:
        size = file_size(path)
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            is_plain = all(m.compress_type == zipfile.ZIP_STORED for m in members)
            # PyTorch does not compare the checksums that it writes.
            damaged = archive.testzip() if is_plain else None
    except Exception as error:  # of zipfile, from damaged bytes
        raise ConversionError(f"{path.name} is damaged: {_first_line(error)}") from error
    if damaged is not None:
        raise ConversionError(
            f"{path.name} is damaged: the checksum of {shown(damaged)} does not match; copy or "
            "download it again"
        )
    if not is_plain or size < sum(member.file_size for member in members):
        raise ConversionError(
            f"{path.name} is refused: it is compressed, or larger than its file; save the state "
            "again with torch.save"
        )


def _to_numpy(name: str, tensor: Any) -> np.ndarray:
    if isinstance(tensor, np.ndarray):
        return tensor
    import torch

    try:
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ConversionError(f"tensor {name} repeats its values; save a copy of it instead")
        if tensor.dtype == torch.bfloat16:  # numpy has no bfloat16: reinterpret the bits
            bits = tensor.detach().contiguous().view(torch.uint16).numpy()
            return bits.view(ml_dtypes.bfloat16)
        return tensor.detach().numpy()
    except (TypeError, RuntimeError, AttributeError) as error:
        raise ConversionError(
            f"tensor {name} ({tensor.dtype}, {tensor.layout}) is not a plain array of numbers"
        ) from error


def read_config(path: Path) -> dict[str, Any]:
    """Reads an `all_config.yaml`.

    Raises:
      ConversionError: it is not YAML, or has no `arch` section.
    """
    try:
        config = read_yaml(path)
    except ValueError as error:
        raise ConversionError(str(error)) from error
    if not isinstance(config, dict) or not isinstance(config.get("arch"), dict):
        raise ConversionError(f"{path.name} must have a section `arch`, as upstream writes")
    return config


def read_dataset(path: Path) -> dict[str, Any]:
    """Reads a `dataset.json`.

    Raises:
      ConversionError: it is not a JSON object.
    """
    try:
        dataset = read_json(path)
    except ValueError as error:
        raise ConversionError(str(error)) from error
    if not isinstance(dataset, dict):
        raise ConversionError(f"{path.name} must be a JSON object; got {type(dataset).__name__}")
    return dataset
