"""Checkpoints on disk: weights stored by Orbax, and a manifest with the digest of every file.

    DIR/params/         the parameters, an Orbax PyTree checkpoint
    DIR/manifest.json   architecture, digest of every leaf and file, tree digest, provenance
    DIR/parity.json     how conversion was checked, if it was
    DIR/README.md       model card, if there is one

Orbax and safetensors do not notice a flipped bit. So `save` reads back what it wrote, and `load`
compares the SHA-256 of every file before it is read. The tree digest, over the leaves and the
architecture, identifies the checkpoint in results.

A digest says nothing about who computed it. So `load` also compares the shapes that the manifest,
the architecture and the arrays' own metadata state before it allocates any of them.
"""

import contextlib
import ctypes
import hashlib
import json
import logging
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import jax
import msgspec
import numpy as np
from etils import epath

from ptrm_jax import files, interrupts
from ptrm_jax.config import ModelConfig, Precision
from ptrm_jax.devices import local
from ptrm_jax.errors import CheckpointError, InputError, mismatches
from ptrm_jax.files import file_digest, json_digest
from ptrm_jax.model import TRM, Params, param_shapes, path_name
from ptrm_jax.reading import MEBIBYTE, file_size, read_json
from ptrm_jax.version import __version__

FORMAT = 1
_ASSETS = epath.Path(__file__).parent / "assets"
_SAFE = "nothing was changed there; make room, or pass another folder"
_REMEDY = "convert or download the checkpoint again"


class Leaf(TypedDict):
    """A parameter in the manifest; `sha256` is of its bytes in C order."""

    shape: list[int]
    dtype: str
    sha256: str


class Manifest(TypedDict):
    """manifest.json, except its own digest.

    Attributes:
      format: version of the layout.
      ptrm_jax: version of the package that wrote it.
      config: `ModelConfig.to_dict`.
      digest: see `tree_digest`.
      leaves: by path.
      files: SHA-256 by path below params/.
      provenance: where the weights come from.
    """

    format: int
    ptrm_jax: NotRequired[str]
    config: dict[str, Any]
    digest: str
    leaves: dict[str, Leaf]
    files: dict[str, str]
    provenance: dict[str, Any]


class _Signed(TypedDict):
    format: int
    manifest_digest: str


def bundled() -> tuple[str, ...]:
    """Names of the checkpoints that come with the package."""
    return tuple(p.name for p in files.listed(_ASSETS) if (p / "manifest.json").exists())


def resolve(name_or_directory: str | os.PathLike[str]) -> epath.Path:
    """Directory of a bundled checkpoint's name, or of a path.

    Raises:
      CheckpointError: it is neither.
    """
    name = os.fspath(name_or_directory)
    directory = _ASSETS / name if name in bundled() else epath.Path(name)
    if not (directory / "manifest.json").exists():
        if (_backup(directory) / "manifest.json").exists():
            return epath.Path(_backup(directory))
        raise CheckpointError(
            f"no checkpoint at {name!r}: it must be a bundled name ({', '.join(bundled())}) or a "
            "directory with a manifest.json, as `python -m convert` writes"
        )
    return directory


def load(
    name_or_directory: str | os.PathLike[str], *, precision: Precision | None = None
) -> tuple[TRM, Params]:
    """The model and its verified parameters.

    Args:
      name_or_directory: a bundled name (see `bundled`) or a directory that `save` wrote.
      precision: how to compute; by default in the dtype the checkpoint was trained with, matmuls
        at "highest".

    Returns:
      model, and params: a nested dict of float32 arrays.

    Raises:
      CheckpointError: not found, damaged, incomplete, inconsistent with its manifest, or with
        weights that are not finite.
      DeviceError: there is no device that JAX can use.
    """
    directory = resolve(name_or_directory)
    manifest = read_manifest(directory)
    try:
        config = ModelConfig.from_dict(manifest["config"])
    except InputError as error:
        raise CheckpointError(f"{directory}/manifest.json: {error}") from error
    model = TRM(config, precision or Precision(compute_dtype=config.forward_dtype))
    stated = {name: f"{leaf['dtype']}{leaf['shape']}" for name, leaf in manifest["leaves"].items()}
    _check_leaves(str(directory), model, stated)
    _verify_files(directory, manifest)
    params = _restore(directory / "params")
    _check_leaves(str(directory), model, _dtypes_and_shapes(params))
    _check_finite(str(directory), params)
    if manifest["digest"] != _tree_digest(config, manifest["leaves"]):
        raise CheckpointError(
            f"{directory}: the manifest's digest is not that of its leaves and architecture; "
            "convert or download the checkpoint again"
        )
    return model, jax.device_put(params)


def read_manifest(name_or_directory: str | os.PathLike[str]) -> Manifest:
    """The manifest of a checkpoint, after comparing its own digest.

    Raises:
      CheckpointError: not found, not readable, damaged, or of another format.
    """
    path = resolve(name_or_directory) / "manifest.json"
    try:
        fields = read_json(path, 64 * MEBIBYTE)
        signed = msgspec.convert(fields, _Signed)
        del fields["manifest_digest"]
        if signed["manifest_digest"] != json_digest(fields):
            raise CheckpointError(
                f"{path} is damaged: its digest does not match; convert the checkpoint again"
            )
        if signed["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {signed['format']}; this version of ptrm_jax reads format "
                f"{FORMAT}; convert the checkpoint again"
            )
        return msgspec.convert(fields, Manifest)
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not a checkpoint manifest ({error}); convert the checkpoint again"
        ) from error


def num_parameters(manifest: Mapping[str, Any]) -> int:
    """Number of parameters of the checkpoint that a manifest describes."""
    return sum(math.prod(leaf["shape"]) for leaf in manifest["leaves"].values())


def save(
    directory: str | os.PathLike[str],
    config: ModelConfig,
    params: Params,
    *,
    provenance: Mapping[str, Any] | None = None,
    parity: Mapping[str, Any] | None = None,
    card: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a checkpoint atomically: no reader sees a part of it.

    Args:
      directory: where to write; must not exist unless `overwrite`.
      config: the architecture.
      params: nested dict of float32 arrays with the shapes of `config`.
      provenance: where the weights come from; JSON.
      parity: how they were checked against their source; JSON.
      card: text of README.md, the model card.
      overwrite: replace an existing checkpoint.

    Returns:
      The directory.

    Raises:
      CheckpointError: it exists, params do not fit config, are not finite, or read back
        differently.
      StorageError: it cannot be written; an existing checkpoint is kept.
    """
    directory = Path(directory)
    if not directory.exists() and _backup(directory).exists():
        _backup(directory).rename(directory)  # killed while it was replaced
    if directory.exists() and not overwrite:
        raise CheckpointError(f"{directory} exists; choose another directory or pass overwrite")
    if directory.exists() and not (directory / "manifest.json").exists():
        raise CheckpointError(f"{directory} is not a checkpoint; it will not be overwritten")
    params = jax.tree.map(np.asarray, params)
    _check_leaves(str(directory), TRM(config), _dtypes_and_shapes(params))
    _check_finite(str(directory), params)
    leaves = _describe_leaves(params)
    # As they will be read: JSON makes keys strings, which may reorder them.
    provenance, parity = json.loads(json.dumps([dict(provenance or {}), parity]))
    with files.writing(directory, _SAFE), _folder_beside(directory) as temporary:
        _write_params(temporary / "params", params)
        if _describe_leaves(_restore(epath.Path(temporary / "params"))) != leaves:
            raise CheckpointError(f"{directory}: the weights read back differ from those written")
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "ptrm_jax": __version__,
            "config": config.to_dict(),
            "digest": _tree_digest(config, leaves),
            "leaves": leaves,
            "files": _digest_files(epath.Path(temporary / "params")),
            "provenance": provenance,
        }
        manifest["manifest_digest"] = json_digest(manifest)
        _write_json(temporary / "manifest.json", manifest)
        if parity is not None:
            _write_json(temporary / "parity.json", parity)
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")
        temporary.chmod(0o755)  # mkdtemp makes it private
        if directory.exists():
            _replace(directory, temporary)
        else:
            temporary.rename(directory)
    return directory


@contextlib.contextmanager
def _folder_beside(directory: Path) -> Iterator[Path]:
    """A temporary folder, so that the last step is a rename within one file system.

    Those that killed processes have left beside the same directory are removed.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    prefix, suffix = f".{directory.name}.", ".partial"
    for path in files.listed(directory.parent, prefix, suffix):
        with _locked(path) as is_ours:
            if is_ours:
                interrupts.remove(os.fspath(path))
    temporary = tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=directory.parent)
    with interrupts.unfinished(temporary), _locked(temporary):
        yield Path(temporary)
        interrupts.remove(temporary)  # what has been replaced


@contextlib.contextmanager
def _locked(folder: str | os.PathLike[str]) -> Iterator[bool]:
    """Locks a folder, also against other machines; says whether no other process has it locked."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # not a POSIX system, or gone
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = True
    except OSError:
        is_ours = False
    try:
        yield is_ours
    finally:
        os.close(handle)


def _replace(directory: Path, by: Path) -> None:
    """Replaces `directory` by `by`, which is or holds the old one afterwards, or is gone.

    Where the system can, the two change places at once. Elsewhere a process may be killed between
    two renames; then `resolve` and `save` find the old one as `_backup`.
    """
    if _exchange(directory, by):
        return
    backup = _backup(directory)
    interrupts.remove(os.fspath(backup))
    directory.rename(backup)
    try:
        by.rename(directory)
    except BaseException:
        backup.rename(directory)
        raise
    interrupts.remove(os.fspath(backup))


def _backup(directory: str | os.PathLike[str]) -> Path:
    path = Path(directory)
    return path.with_name(f".{path.name}.replaced") if path.name else path


def _exchange(first: Path, second: Path) -> bool:
    """Whether the two could be exchanged atomically, by Linux's renameat2 with RENAME_EXCHANGE."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):  # an older C library
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0


def tree_digest(config: ModelConfig, params: Params) -> str:
    """SHA-256 over the architecture and every leaf: the identity of a checkpoint, 64 hex digits.

    It does not depend on how the weights are stored.
    """
    return _tree_digest(config, _describe_leaves(jax.tree.map(np.asarray, params)))


def _tree_digest(config: ModelConfig, leaves: Mapping[str, Any]) -> str:
    return json_digest({"config": config.to_dict(), "leaves": leaves})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _describe_leaves(params: Params) -> dict[str, Leaf]:
    return {
        path_name(path): {
            "shape": list(leaf.shape),
            "dtype": str(leaf.dtype),
            "sha256": hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest(),
        }
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _dtypes_and_shapes(params: Params) -> dict[str, str]:
    return {
        path_name(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _check_leaves(where: str, model: TRM, leaves: Mapping[str, str]) -> None:
    """Raises CheckpointError with every difference in name, dtype or shape from the model's."""
    expected = {
        name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in param_shapes(model).items()
    }
    problems = mismatches(
        expected, leaves, lambda name, want, got: f"{name} is {got}, expected {want}"
    )
    if problems:
        raise CheckpointError(f"{where}: weights do not fit the model: " + "; ".join(problems))


def _check_finite(where: str, params: Params) -> None:
    """Raises CheckpointError with every leaf that has a NaN or an infinity."""
    problems = [
        path_name(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if not np.isfinite(leaf).all()
    ]
    if problems:
        raise CheckpointError(f"{where}: weights must be finite; not so {', '.join(problems)}")


def _file_names(directory: epath.Path, prefix: str = "") -> Iterator[str]:
    """Names below a folder; a link to a folder is one of them, and is not followed."""
    for path in files.listed(directory):
        if path.is_dir() and not os.path.islink(path):
            yield from _file_names(path, f"{prefix}{path.name}/")
        else:
            yield f"{prefix}{path.name}"


def _digest_files(directory: epath.Path) -> dict[str, str]:
    return {name: file_digest(directory / name) for name in _file_names(directory)}


def _verify_files(directory: epath.Path, manifest: Manifest) -> None:
    """Compares the files with the manifest: names, what they state, sizes, digests."""
    folder, stated = directory / "params", manifest["files"]
    names = list(_file_names(folder))
    if not names:
        raise CheckpointError(f"{folder} is missing; {_REMEDY}")
    problems = mismatches(dict.fromkeys(stated), dict.fromkeys(names), lambda *_: "")
    if not problems:
        try:
            # Sizes come before digests, and digests before contents.
            problems = _oversized(folder, manifest)
            found = {} if problems else _digest_files(folder)
            problems += [f"{n} is damaged" for n in sorted(found) if found[n] != stated[n]]
            problems = problems or _misshapen(folder, manifest)
        except (InputError, OSError) as error:
            problems = [str(error)]
    if problems:
        raise CheckpointError(
            f"{folder} differs from its manifest: {'; '.join(problems)}; {_REMEDY}"
        )


def _oversized(folder: epath.Path, manifest: Manifest) -> list[str]:
    """Files too large for the arrays, or arrays too large for the files."""
    arrays = 4 * num_parameters(manifest)
    stored = sum(file_size(folder / name) for name in manifest["files"])
    if stored > 2 * arrays + MEBIBYTE * len(manifest["files"]):
        return [f"it has {stored:,} bytes for arrays of {arrays:,}"]
    # Weights hardly compress; arrays of one value, which do, are small.
    if arrays > 256 * MEBIBYTE + 200 * stored:
        return [f"it has {stored:,} bytes, too few for arrays of {arrays:,}"]
    return []


def _misshapen(folder: epath.Path, manifest: Manifest) -> list[str]:
    """Arrays whose own metadata state another shape, or another way of storing them than ours."""
    problems = []
    leaves = {name.replace("/", "."): leaf for name, leaf in manifest["leaves"].items()}
    for name in manifest["files"]:
        array, _, file = name.rpartition("/")
        if file in (".zarray", "manifest.ocdbt") or (file == "zarr.json" and array not in leaves):
            problems.append(f"{name} is of no parameter")
        elif file == "zarr.json" and not _describes(read_json(folder / name), leaves[array]):
            problems.append(f"{name} is not of a {leaves[array]['dtype']}{leaves[array]['shape']}")
    return problems


def _describes(metadata: Any, leaf: Leaf) -> bool:
    """Whether zarr metadata are of this array, in chunks no larger than it."""

    def fits(chunk: list[int]) -> bool:
        return len(chunk) == len(leaf["shape"]) and all(
            1 <= part <= max(whole, 1) for part, whole in zip(chunk, leaf["shape"], strict=True)
        )

    try:
        shards = [c["configuration"] for c in metadata["codecs"] if c["name"] == "sharding_indexed"]
        codecs = [c["name"] for part in (metadata, *shards) for c in part["codecs"]]
        grids = [metadata["chunk_grid"]["configuration"], *shards]
        return (
            (metadata["shape"], metadata["data_type"]) == (leaf["shape"], leaf["dtype"])
            and all(fits(grid["chunk_shape"]) for grid in grids)
            and set(codecs) <= {"bytes", "zstd", "crc32c", "sharding_indexed"}
            and codecs.count("sharding_indexed") == len(shards) <= 1
        )
    except (TypeError, KeyError):
        return False


def _checkpointer() -> Any:
    import orbax.checkpoint as ocp  # 0.8 s to import: only where it is used

    # One file per leaf, none of them hidden, so that packaging includes all of them.
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=True))


def _write_params(path: Path, params: Params) -> None:
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)  # Orbax warns that OCDBT files are missing, as intended
    try:
        with _checkpointer() as checkpointer:
            checkpointer.save(path.absolute(), params)
    finally:
        log.setLevel(level)
    # Orbax writes this machine's path into it.
    (path / "commit_success.txt").write_text("whole\n", encoding="utf-8")


def _restore(path: epath.Path) -> Params:
    local()  # first, since Orbax needs a device: where there is none, the files are not to blame
    try:
        with _checkpointer() as checkpointer:
            restored = checkpointer.restore(path if "://" in str(path) else path.resolve())
    # Orbax raises a bare Exception with pages of text.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} cannot be read: {reason[:200]}") from error
    return jax.tree.map(np.asarray, restored)
