"""Data sets by name, file, folder or address on the Hugging Face hub."""

import os
import re

from etils import epath

from ptrm_jax import files
from ptrm_jax.data import Dataset, make_dataset, read_upstream
from ptrm_jax.errors import DataError
from ptrm_jax.reading import check_inside, file_size
from ptrm_jax.tasks.catalog import of_file, of_name

_BUNDLED = epath.Path(__file__).parents[1] / "assets" / "puzzles"


def _bundled() -> dict[str, epath.Path]:
    return {p.stem: p for p in files.listed(_BUNDLED) if p.suffix in (".csv", ".jsonl")}


def bundled_sets() -> tuple[str, ...]:
    """Names of the puzzle sets that come with the package."""
    return tuple(_bundled())


def read_dataset(source: str | os.PathLike[str], *, split: str = "test") -> Dataset:
    """A data set by name, file, folder or hub address.

    Args:
      source: the name of a bundled set (see `bundled_sets`) or of one that a task offers, such as
        "ppbench-golden" (needs the package ppbench); a file of some task, such as a CSV of Sudokus
        or square mazes with columns `source,question,answer,rating`, or JSON lines of PPBench; a
        folder in upstream's layout; or `hf://datasets/owner/name[@revision]/path` of such a file
        or folder on the Hugging Face hub (needs huggingface_hub).
      split: sub-folder of a folder in upstream's layout that has no `dataset.json` itself.

    Raises:
      DataError: not found, incomplete or malformed.
    """
    name = os.fspath(source)
    if name.startswith("hf://"):
        path = _from_hub(name)
    else:
        path = _bundled().get(name, epath.Path(name))
    if path.is_dir():
        return read_upstream(path, split, name=name)
    if (task := of_name(name)) is None:
        if not path.exists():
            raise DataError(
                f"no data at {name!r}: it must be a bundled name ({', '.join(bundled_sets())}), a "
                "CSV or JSON-lines file, or a folder in upstream's layout (<split>/dataset.json, "
                "all__inputs.npy, ...)"
            )
        try:
            file_size(path)
        except ValueError as error:
            raise DataError(str(error)) from error
        if (task := of_file(path)) is None:
            raise DataError(
                f"{name} must be a .csv or .jsonl file, a file of another installed task, or a "
                f"folder; got suffix {path.suffix!r}"
            )
    try:
        read = task.named.get(name)
        inputs, labels, strata = task.read(path) if read is None else read()
        vocab_size = task.vocab_size(inputs.shape[1])
    except (ValueError, ImportError) as error:
        raise DataError(str(error)) from error
    return make_dataset(name, inputs, labels, vocab_size, task=task.name, strata=strata)


def _from_hub(name: str) -> epath.Path:
    """A file or folder of a data set on the Hugging Face hub, downloaded to the hub's cache."""
    match = re.fullmatch(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)", name)
    if match is None:
        raise DataError(
            f"data on the hub must read hf://datasets/owner/name[@revision]/path; got {name!r}"
        )
    repository, revision, path = match.groups()
    try:
        check_inside(path)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise DataError(
            f"{name} needs huggingface_hub: pip install 'ptrm-jax[hub]', or download it and give "
            "its path"
        ) from error
    try:
        folder = hub.snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[path, f"{path}/*"],
        )
    except Exception as error:  # the hub's own, requests' and httpx's, depending on its version
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise DataError(
            f"{name} cannot be read from the hub: {first}; check the name and the connection, or "
            "download it and give its path"
        ) from error
    return epath.Path(folder) / path
