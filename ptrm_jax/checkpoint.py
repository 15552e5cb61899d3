"""Checkpoints on disk: weights stored by Orbax, and a manifest with the digest of every file.

    DIR/params/         the parameters, an Orbax PyTree checkpoint
    DIR/manifest.json   architecture, digest of every leaf and file, tree digest, provenance
    DIR/parity.json     how conversion was checked, if it was
    DIR/README.md       model card, if there is one

Orbax and safetensors do not notice a flipped bit. So `save` reads back what it wrote, and `load`
compares the SHA-256 of every file before it is read. The tree digest, over the leaves and the
architecture, identifies the checkpoint in results.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from etils import epath

from ptrm_jax.config import ModelConfig, Precision
from ptrm_jax.errors import CheckpointError, InputError, mismatches
from ptrm_jax.files import file_digest
from ptrm_jax.model import TRM, Params, param_shapes, path_name
from ptrm_jax.version import __version__

FORMAT = 1
_ASSETS = epath.Path(__file__).parent / "assets"


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
    return tuple(sorted(p.parent.name for p in _ASSETS.glob("*/manifest.json")))


def resolve(name_or_directory: str | os.PathLike[str]) -> epath.Path:
    """Directory of a bundled checkpoint's name, or of a path.

    Raises:
      CheckpointError: it is neither.
    """
    name = os.fspath(name_or_directory)
    directory = _ASSETS / name if name in bundled() else epath.Path(name)
    if not (directory / "manifest.json").exists():
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
      CheckpointError: not found, damaged, incomplete, or inconsistent with its manifest.
    """
    directory = resolve(name_or_directory)
    manifest = read_manifest(directory)
    try:
        config = ModelConfig.from_dict(manifest["config"])
    except InputError as error:
        raise CheckpointError(f"{directory}/manifest.json: {error}") from error
    model = TRM(config, precision or Precision(compute_dtype=config.forward_dtype))
    _verify_files(directory, manifest["files"])
    params = _restore(directory / "params")
    stated = {name: f"{leaf['dtype']}{leaf['shape']}" for name, leaf in manifest["leaves"].items()}
    for leaves in (_dtypes_and_shapes(params), stated):
        _check_leaves(str(directory), model, leaves)
    if manifest["digest"] != _tree_digest(config, manifest["leaves"]):
        raise CheckpointError(
            f"{directory}: the manifest's digest is not that of its leaves and architecture; "
            "convert or download the checkpoint again"
        )
    return model, jax.tree.map(jnp.asarray, params)


def read_manifest(name_or_directory: str | os.PathLike[str]) -> Manifest:
    """The manifest of a checkpoint, after comparing its own digest.

    Raises:
      CheckpointError: not found, not readable, damaged, or of another format.
    """
    path = resolve(name_or_directory) / "manifest.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        signed = msgspec.convert(fields, _Signed)
        del fields["manifest_digest"]
        if signed["manifest_digest"] != _digest_json(fields):
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
      CheckpointError: it exists, params do not fit config, or they read back differently.
    """
    directory = Path(directory)
    if directory.exists() and not overwrite:
        raise CheckpointError(f"{directory} exists; choose another directory or pass overwrite")
    if directory.exists() and not (directory / "manifest.json").exists():
        raise CheckpointError(f"{directory} is not a checkpoint; it will not be overwritten")
    params = jax.tree.map(np.asarray, params)
    _check_leaves(str(directory), TRM(config), _dtypes_and_shapes(params))
    leaves = _describe_leaves(params)
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename within one file system.
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
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
            "provenance": dict(provenance or {}),
        }
        # The digest is of the manifest as read: JSON makes keys strings, which may reorder them.
        manifest = json.loads(json.dumps(manifest))
        manifest["manifest_digest"] = _digest_json(manifest)
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
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return directory


def _replace(directory: Path, by: Path) -> None:
    """Replaces `directory` by `by`; restores it if that fails, and deletes it last."""
    old = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    directory.rename(old / "replaced")
    try:
        by.rename(directory)
    except BaseException:
        (old / "replaced").rename(directory)
        old.rmdir()
        raise
    shutil.rmtree(old)


def tree_digest(config: ModelConfig, params: Params) -> str:
    """SHA-256 over the architecture and every leaf: the identity of a checkpoint, 64 hex digits.

    It does not depend on how the weights are stored.
    """
    return _tree_digest(config, _describe_leaves(jax.tree.map(np.asarray, params)))


def _tree_digest(config: ModelConfig, leaves: Mapping[str, Any]) -> str:
    return _digest_json({"config": config.to_dict(), "leaves": leaves})


def _digest_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


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


def _digest_files(directory: epath.Path) -> dict[str, str]:
    digests: dict[str, str] = {}
    for path in sorted(directory.iterdir()) if directory.exists() else ():
        if path.is_dir():
            digests |= {f"{path.name}/{name}": d for name, d in _digest_files(path).items()}
        else:
            digests[path.name] = file_digest(path)
    return digests


def _verify_files(directory: epath.Path, stated: Mapping[str, str]) -> None:
    found = _digest_files(directory / "params")
    if not found:
        raise CheckpointError(
            f"{directory}/params is missing; convert or download the checkpoint again"
        )
    problems = mismatches(stated, found, lambda name, want, got: f"{name} is damaged")
    if problems:
        raise CheckpointError(
            f"{directory}/params differs from its manifest: {'; '.join(problems)}; convert or "
            "download the checkpoint again"
        )


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
    try:
        with _checkpointer() as checkpointer:
            restored = checkpointer.restore(path if "://" in str(path) else path.resolve())
    # Orbax raises a bare Exception with pages of text.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} cannot be read: {reason[:200]}") from error
    return jax.tree.map(np.asarray, restored)
