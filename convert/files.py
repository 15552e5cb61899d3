"""Finding and reading upstream's checkpoint files.

Source: upstream `pretrain.py`, which writes them.
"""

import dataclasses
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from convert.mapping import (
    BUFFERS,
    H_INIT,
    LAYERS,
    ConversionError,
    canonical_name,
    check_architecture,
    unwrapped,
)
from ptrm_jax.files import file_digest
from ptrm_jax.reading import (
    MEBIBYTE,
    file_size,
    read_bytes,
    read_json,
    read_yaml,
    shown,
)

# --- Finding the files ---------------------------------------------------------------------------

CONFIG_NAMES = ("all_config.yaml", "config.yaml", "config.yml", "config.json")
"""Files with the architecture, upstream's own first."""
DATASET_PLACES = tuple(
    f"{folder}dataset.json" for folder in ("", "data/test/", "data/train/", "data/")
)
_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_INDEX = ".index.json"
# `step_<n>` as upstream names it, and longer names with that in it; none of its other suffixes
# (`step_<n>_all_preds.0` are predictions).
_STEP = re.compile(r"step_(\d+)")
_STEP_NAME = re.compile(r"(?:.*[_-])?step[_=-]?(\d+)(?:[_-].*)?")
_SHARD = re.compile(r".*-\d+-of-\d+\.(?:bin|safetensors)")
_OF_A_TRAINER = re.compile(r"(?:training_args|optimizer|scheduler|scaler|rng_state).*")
_DEEPEST = 3  # folders below a run folder that are searched


@dataclasses.dataclass(frozen=True)
class Source:
    """Local files of one checkpoint.

    Attributes:
      file: the weights, or the index of their shards.
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
      source: a file; a folder, for its highest `step_<n>` or its only file of weights (.pt, .pth,
        .bin, .ckpt, .safetensors, the index of their shards, or a name such as
        `maze_step_<n>`); or one of these on the Hugging Face hub: `hf://owner/name[@revision]`
        with `/file` or `/folder`, the same without `hf://`, or its https address.
      config: path of `all_config.yaml`; by default beside the weights, or above them.
      dataset: path of `dataset.json`; by default beside the weights or in data/test, data/train
        or data there.

    Raises:
      ConversionError: no checkpoint, or several, which are listed; `config` or `dataset` does not
        exist.
    """
    text = os.fspath(source)
    path = Path(source)
    if path.is_dir():
        names = [found.relative_to(path).as_posix() for found in _walk(path, _DEEPEST)]
        file = _choose(names, text)
        name = f"{path.resolve().name}/{file}"
        found = _source(path / file, "run folder", name, file, names, path.joinpath)
    elif path.is_file():
        places = (*CONFIG_NAMES, *DATASET_PLACES)
        names = [place for place in places if (path.parent / place).is_file()]
        found = _source(path, "file", path.name, path.name, names, path.parent.joinpath)
    else:
        found = _find_on_hub(text)
    for field, stated in (("config", config), ("dataset", dataset)):
        if stated is not None and not Path(stated).is_file():
            raise ConversionError(f"--{field} {os.fspath(stated)}: no such file")
    return dataclasses.replace(
        found,
        config=Path(config) if config is not None else found.config,
        dataset=Path(dataset) if dataset is not None else found.dataset,
    )


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """The files of a folder and of those below it that are not hidden."""
    for path in folder.iterdir():
        if path.is_file():
            yield path
        elif depth and path.is_dir() and not path.name.startswith("."):
            yield from _walk(path, depth - 1)


def _source(
    path: Path,
    kind: str,
    name: str,
    file: str,
    names: Collection[str],
    fetch: Callable[[str], Path],
) -> Source:
    """The source whose weights are at `path`; `file` and `names` are below what was searched."""
    step = _step_of(PurePosixPath(file).name)

    def beside(places: Sequence[str]) -> Path | None:
        for folder in PurePosixPath(file).parents:  # its own first
            for place in places:
                if (wanted := (folder / place).as_posix()) in names:
                    return fetch(wanted)
        return None

    return Source(
        file=path,
        kind=kind,
        name=name,
        step=step,
        config=beside(CONFIG_NAMES),
        dataset=beside(DATASET_PLACES),
    )


def _step_of(name: str) -> int | None:
    stem = name
    for suffix in _WEIGHTS:
        stem = stem.removesuffix(suffix)
    match = _STEP_NAME.fullmatch(stem)
    return int(match[1]) if match and ("." not in stem) and "all_preds" not in stem else None


def _is_weights(name: str) -> bool:
    if _SHARD.fullmatch(name) or _OF_A_TRAINER.fullmatch(name):
        return False
    whole = name.endswith(_WEIGHTS) or _step_of(name) is not None
    return whole or name.endswith(tuple(suffix + _INDEX for suffix in _WEIGHTS))


def _choose(names: Collection[str], source: str) -> str:
    """The highest `step_<n>` among file names, or else the only file of weights.

    Names in folders count if there are none above them.
    """
    weights = [name for name in names if _is_weights(PurePosixPath(name).name)]
    depth = min((name.count("/") for name in weights), default=0)
    choices = sorted(name for name in weights if name.count("/") == depth)
    steps = {
        name: int(m[1]) for name in choices if (m := _STEP.fullmatch(PurePosixPath(name).name))
    }
    if steps and len({PurePosixPath(name).parent for name in choices}) == 1:
        return max(steps, key=steps.__getitem__)
    if len(choices) == 1:
        return choices[0]
    if choices:
        listed = ", ".join(f"{source.rstrip('/')}/{name}" for name in choices)
        raise ConversionError(f"{source} has several checkpoints; pass one of {listed}")
    raise ConversionError(
        f"{source} has no checkpoint: no step_<n> and no {', '.join(_WEIGHTS)} file"
    )


_PART = r"[\w.-]+"
_ON_HUB = re.compile(rf"(?:hf://)?({_PART}/{_PART})(?:@([^/]+))?(?:/(.+?))?/?")
_ADDRESS = re.compile(
    rf"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/({_PART}/{_PART})"
    r"(?:/(?:tree|blob|resolve|raw)/([^/?#]+)(?:/([^?#]+?))?)?/?(?:[?#].*)?"
)


def _find_on_hub(source: str) -> Source:
    match = _ADDRESS.fullmatch(source) or _ON_HUB.fullmatch(source)
    if match is None or {".", "..", ""} & set(f"{match[1]}/{match[3] or 'file'}".split("/")):
        if "://" not in source:
            raise ConversionError(f"no checkpoint at {source}: no such file or folder")
        raise ConversionError(
            f"{source} must have the form hf://owner/name[@revision][/file], or be the https "
            "address of a model on huggingface.co"
        )
    repo, revision, inside = match.groups()
    local = "" if "://" in source else "no such file or folder, and "
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise ConversionError(
            f"no checkpoint at {source}: {local}a name on the hub needs huggingface_hub: pip "
            "install 'ptrm-jax[hub]', or download the files and pass their folder"
        ) from error

    def fetch(name: str) -> Path:
        return Path(hub.hf_hub_download(repo, name, revision=revision))

    address = f"hf://{repo}" + (f"@{revision}" if revision else "")
    try:
        names = hub.HfApi().list_repo_files(repo, revision=revision)
        file = inside
        if inside not in names:
            within = [name for name in names if not inside or name.startswith(f"{inside}/")]
            if not within:
                raise ConversionError(f"{address} has no file or folder {inside}")
            file = _choose(within, address)
        path = fetch(file)
        for shard in _shards(path):
            fetch((PurePosixPath(file).parent / shard).as_posix())
        name = f"hf://{repo}@{revision or 'main'}/{file}"
        return _source(path, "hub", name, file, names, fetch)
    except ConversionError:
        raise
    except Exception as error:  # of huggingface_hub, requests or httpx, depending on the version
        raise ConversionError(
            f"no checkpoint at {source}: {local}it cannot be read from the hub: "
            f"{_first_line(error)}; check the name and the connection, or download the files and "
            "pass their folder"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


# --- Reading the files ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Weights:
    """The tensors of a checkpoint file, and what they are.

    Attributes:
      state: canonical name to array, in the file's dtypes.
      entry: path of the state within the file; "" if it is the whole file.
      prefix: what was removed in front of the names, beside the wrappers inside them.
      note: whether they are raw or averaged weights, if the file says; "" if not.
      config: settings with a section `arch` that the file contains, or None.
    """

    state: dict[str, np.ndarray]
    entry: str
    prefix: str
    note: str
    config: Mapping[str, Any] | None


def read_state(path: str | os.PathLike[str], *, entry: str | None = None) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint file by canonical name; see `read_weights`."""
    return read_weights(path, entry=entry).state


def read_weights(path: str | os.PathLike[str], *, entry: str | None = None) -> Weights:
    """Reads the tensors of a checkpoint file.

    `.safetensors` files are read without PyTorch, others with `torch.load`, restricted to tensors,
    plain containers and numpy's numbers. Averaged weights, which an entry's name tells ("ema",
    "shadow", "averaged"), are preferred to raw ones beside them; where they lack the buffers, which
    are not averaged, these come from the raw state.

    Args:
      path: the file, or the index of its shards.
      entry: path of the state within the file, e.g. "ema" or "trainer.model_state_dict"; needed
        only if the file has several.

    Raises:
      ConversionError: the file is damaged, would run code, has no state or several, or has two
        tensors of the same canonical name.
    """
    path = Path(path)
    content = _read_content(path)
    states = dict(_states(content))
    # An optimiser's state has tensors too, but not with a network's names.
    networks = {at: state for at, state in states.items() if _looks_like_trm(state)}
    if not states:
        raise ConversionError(f"{path.name} has no tensors: it is not a checkpoint")
    choices = networks or states
    averaged = [at for at in choices if _is_average(at)]
    raw = [at for at in choices if at not in averaged]
    if entry is not None:
        chosen = entry
    elif len(choices) == 1:
        (chosen,) = choices
    else:
        chosen = averaged[0] if len(averaged) == 1 and len(raw) == 1 else ""
    if chosen not in states or (entry is None and len(choices) > 1 and chosen not in averaged):
        reason = f"has no entry {entry!r}" if entry is not None else "has several states"
        entries = ", ".join(repr(at) for at in choices)
        raise ConversionError(f"{path.name} {reason}; pass --entry, one of {entries}")
    tensors = states[chosen].canonical()
    counts = Counter(name for name, _ in tensors)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise ConversionError(
            f"{path.name} has several tensors, with different prefixes, named "
            + ", ".join(repeated)
        )
    state = dict(tensors)
    note = ""
    if chosen in averaged:
        note = f"averaged weights, entry {chosen!r}"
        buffers = dict(states[raw[0]].canonical()) if len(raw) == 1 else {}
        filled = [name for name in BUFFERS if name in buffers and name not in state]
        if filled:
            state |= {name: buffers[name] for name in filled}
            note += f", with {', '.join(filled)} from {raw[0]!r}"
        note += "; do not average again"
    elif averaged:
        at = ", ".join(map(repr, averaged))
        note = f"raw weights, entry {chosen!r}; the averaged ones are in {at}"
    elif unnamed := next(_unnamed_averages(content), None):
        note = f"raw weights; the file has averaged ones without names in {unnamed!r}"
    arrays = {name: _to_numpy(name, tensor) for name, tensor in state.items()}
    # Tied weights share their storage; what shares more can be of any size.
    size = sum(file_size(part) for part in (path, *(path.parent / x for x in _shards(path))))
    if sum(array.nbytes for array in arrays.values()) > 4 * size + MEBIBYTE:
        raise ConversionError(f"{path.name} is refused: its tensors are larger than the file")
    return Weights(
        arrays,
        chosen,
        states[chosen].written_prefix(),
        note,
        next(_configs(content), None),
    )


class _State(NamedTuple):
    """Tensors by their names in the file, and what stands before those of the network.

    Counters of wrappers, such as n_averaged, stand beside what they wrap, and are left out.
    """

    tensors: dict[str, Any]
    prefix: str

    @classmethod
    def make(cls, named: Mapping[str, Any], prefix: str) -> "_State":
        of_network = {name for name in named if unwrapped(name).startswith(prefix)}
        return cls({n: x for n, x in named.items() if n in of_network or x.ndim}, prefix)

    def canonical(self) -> list[tuple[str, Any]]:
        """Canonical name and tensor of each."""
        return [
            (canonical_name(unwrapped(name).removeprefix(self.prefix)), tensor)
            for name, tensor in self.tensors.items()
        ]

    def written_prefix(self) -> str:
        """What stands before the network's names in the file."""
        for name in self.tensors:
            for anchor in (H_INIT, LAYERS.partition(".")[0]):
                if unwrapped(name).startswith(f"{self.prefix}{anchor}"):
                    return name[: name.index(anchor)]
        return ""


_DEEPEST_STATE = 16  # levels of mappings that are searched


def _nested(content: Any) -> Iterator[tuple[str, Any]]:
    """Dotted path and value of all that nested mappings hold, each mapping once."""
    waiting, seen = [("", content, 0)], set()
    while waiting:
        at, value, depth = waiting.pop()
        if isinstance(value, Mapping):
            if id(value) in seen or depth > _DEEPEST_STATE:
                continue
            seen.add(id(value))
            inner = [(f"{at}.{str(k)[:99]}".lstrip("."), v, depth + 1) for k, v in value.items()]
            waiting += reversed(inner)
        yield at, value


def _states(content: Any) -> Iterator[tuple[str, _State]]:
    """Dotted path and tensors of every state within nested mappings.

    A state is a mapping with tensors, or the names in it with one of several prefixes before the
    layers of a network, as in `net.` and `ema_net.`.
    """
    for at, value in _nested(content):
        if not isinstance(value, Mapping):
            continue
        named = {k: v for k, v in value.items() if isinstance(k, str) and hasattr(v, "dtype")}
        found = {name: unwrapped(name).partition(LAYERS) for name in named}
        prefixes = {prefix for prefix, layers, _ in found.values() if layers}
        prefixes = {prefix for prefix in prefixes if prefix == "" or prefix.endswith(".")}
        if len(prefixes) > 1:
            for prefix in sorted(prefixes):
                mine = {
                    name: tensor
                    for name, tensor in named.items()
                    if prefix == _longest(prefixes, unwrapped(name))
                }
                yield f"{at}.{prefix}".strip("."), _State.make(mine, prefix)
        elif named:
            yield at, _State.make(named, next(iter(prefixes), ""))


def _longest(prefixes: Collection[str], name: str) -> str | None:
    return max((p for p in prefixes if name.startswith(p)), key=len, default=None)


def _is_average(at: str) -> bool:
    return re.search(r"(?:^|[._-])(?:ema|shadow|averaged?|swa)(?:$|[._-])", at.lower()) is not None


def _unnamed_averages(content: Any) -> Iterator[str]:
    """Paths of lists of tensors that are averaged weights without names."""
    for at, value in _nested(content):
        if isinstance(value, (list, tuple)) and value and hasattr(value[0], "dtype"):
            if _is_average(at.replace("_params", "")):
                yield at


def _configs(content: Any) -> Iterator[Mapping[str, Any]]:
    """Nested mappings with the section `arch` of an `all_config.yaml`."""
    for _, value in _nested(content):
        if isinstance(value, Mapping) and isinstance(arch := value.get("arch"), Mapping):
            if "H_cycles" in arch:
                yield value


def _looks_like_trm(state: _State) -> bool:
    try:
        check_architecture(dict(state.canonical()))
    except ConversionError:
        return False
    return True


_LARGEST = 64 * 2**30
"""Bytes of a file of weights; there is no larger TRM."""
_MOST_TENSORS = 10_000


def _read_content(path: Path) -> Any:
    if path.name.endswith(_INDEX):
        tensors: dict[str, Any] = {}
        for shard in _shards(path):
            if not (path.parent / shard).is_file():
                raise ConversionError(f"{path.name} names {shard}, which is missing beside it")
            tensors |= _read_content(path.parent / shard)
        return tensors
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def _shards(path: Path) -> list[str]:
    """Names of the shards of an index, beside it; none for another file."""
    if not path.name.endswith(_INDEX):
        return []
    try:
        weight_map = read_json(path)["weight_map"]
        shards = sorted(set(weight_map.values()))
        if not all(re.fullmatch(r"\w[\w.-]*", shard) for shard in shards):
            raise ValueError("a shard must be a file name")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConversionError(f"{path.name} is not an index of shards: {error!r}") from error
    return shards


def weights_digest(path: Path) -> str:
    """SHA-256 of a file; of an index, that of the digests of itself and its shards."""
    digests = [file_digest(path), *(file_digest(path.parent / shard) for shard in _shards(path))]
    return digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest()


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
    if len(tensors) > _MOST_TENSORS:
        raise ConversionError(
            f"{path.name} must have at most {_MOST_TENSORS:,} tensors, more than a TRM has; it has "
            f"{len(tensors):,}; pass another file"
        )
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
        file_size(path)  # refuses what is no file, such as a pipe, which would never end
        with path.open("rb") as file:
            start = file.read(64)
    except (ValueError, OSError) as error:
        raise ConversionError(f"{path.name} cannot be read: {_first_line(error)}") from error
    if start.startswith(b"version https://git-lfs"):
        raise ConversionError(f"{path.name} is a pointer of Git LFS; fetch the file: git lfs pull")
    if start and not start.startswith((b"PK", b"\x80")):
        raise ConversionError(
            f"{path.name} is not a PyTorch file; pass a run folder, a step_<n>, or a file "
            f"{', '.join(_WEIGHTS)}"
        )
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
        with warnings.catch_warnings(), torch.serialization.safe_globals(_numpy_globals()):
            warnings.simplefilter("ignore")  # about unusual pickle protocols, which raise as well
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        match = re.search(r"unsupported (GLOBAL \S+)|(Unsupported [^\n]+)", str(error))
        what = f" ({match[1] or match[2]})" if match else ""
        raise ConversionError(
            f"{path.name} is refused: it contains more than tensors{what}, and unpickling that can "
            "execute arbitrary code; nothing was executed; obtain a plain state_dict or a "
            '.safetensors file, or, if you trust it, re-save its state: python -c "import torch; '
            f"torch.save(torch.load('{path.name}', weights_only=False)['model'], 'plain.pt')\""
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


def _numpy_globals() -> list[Any]:
    """What a random state or a score of numpy in a checkpoint is made of: arrays of numbers."""
    import pickle

    def dtype(*args: Any) -> np.dtype:
        made = np.dtype(*args)
        if made.kind not in "biufc":
            raise pickle.UnpicklingError(f"Unsupported numpy dtype {made}")
        return made

    def scalar(kind: np.dtype, data: bytes) -> Any:
        if not isinstance(data, bytes) or len(data) != kind.itemsize:
            raise pickle.UnpicklingError("Unsupported numpy scalar")
        return np.frombuffer(data, kind)[0]

    def reconstruct(kind: type, shape: tuple[int, ...], code: bytes) -> np.ndarray:
        if shape != (0,):
            raise pickle.UnpicklingError("Unsupported numpy array")
        return np.empty(0, np.int8)  # `__setstate__` gives it its dtype, shape and data

    modules = [f"numpy.{core}.multiarray" for core in ("core", "_core")]
    functions = [
        (function, f"{module}.{name}")
        for module in modules
        for name, function in (("_reconstruct", reconstruct), ("scalar", scalar))
    ]
    # The types of dtypes may be completed, not made: an object dtype is of none of them.
    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefdFD"}
    return [
        (dtype, "numpy.dtype"),
        (np.ndarray, "numpy.ndarray"),
        *functions,
        *((kind, f"numpy.dtypes.{kind.__name__}") for kind in kinds),
    ]


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
    """Reads an `all_config.yaml`, or upstream's own file of an architecture, which is its `arch`.

    Raises:
      ConversionError: it is not YAML, has no architecture, or a reference in it leads nowhere.
    """
    try:
        config = read_yaml(path)
    except ValueError as error:
        raise ConversionError(str(error)) from error
    if isinstance(config, dict) and "arch" not in config and "H_cycles" in config:
        config = {"arch": config}
    if not isinstance(config, dict) or not isinstance(config.get("arch"), dict):
        raise ConversionError(
            f"{path.name} must have a section `arch`, as upstream writes; pass another --config"
        )
    return config | {"arch": _resolved(config, path.name)}


def _resolved(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`arch` with Hydra's references, such as ${.hidden_size} or ${arch.hidden_size}, followed."""
    arch = config["arch"]

    def follow(value: Any) -> Any:
        for _ in range(len(arch) + 1):
            match = isinstance(value, str) and re.fullmatch(r"\$\{(\.?)([\w.]+)\}", value)
            if not match:
                return value
            found: Any = arch if match[1] else config
            for part in match[2].split("."):
                found = found.get(part) if isinstance(found, dict) else None
            if found is None:
                break
            value = found
        raise ConversionError(f"{name}: the reference {value} leads nowhere; write the value")

    return {key: follow(value) for key, value in arch.items()}


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
