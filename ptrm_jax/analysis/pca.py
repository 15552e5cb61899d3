"""Principal components of states, for the plane in which trajectories are drawn."""

from typing import NamedTuple

import numpy as np

from ptrm_jax.errors import InputError


class Plane(NamedTuple):
    """Points projected on their largest principal components.

    Attributes:
      coordinates: [..., num] float64, along the axes, relative to the mean.
      share: [num] fraction of the variance along each axis, descending; NaN for equal points.
      mean: [F] of the points.
      axes: [num, F] orthonormal rows; rows of zeros beyond the rank of the points.
    """

    coordinates: np.ndarray
    share: np.ndarray
    mean: np.ndarray
    axes: np.ndarray


def principal_plane(states: np.ndarray, num: int = 2) -> Plane:
    """Principal components of all points of an array.

    Each axis has the sign that makes its entry of largest magnitude (the first of equals) positive,
    so that the same points always give the same picture.

    Args:
      states: [..., F] float; all leading axes count points.
      num: number of components.

    Raises:
      InputError: num is outside 1..F, or there is no point.
    """
    points = np.asarray(states, np.float64).reshape(-1, np.shape(states)[-1])
    num_points, num_features = points.shape
    if not (1 <= num <= num_features and num_points):
        raise InputError(
            f"num must be in 1..{num_features}, the features of at least one point; got {num} and "
            f"{num_points} points; pass fewer components or more points"
        )
    mean = points.mean(axis=0)
    centred = points - mean
    total = float(np.square(centred).sum())
    axes = np.zeros((num, num_features))
    # The smaller of the two Gram matrices; both have the same nonzero eigenvalues.
    gram = num_points < num_features
    values, vectors = np.linalg.eigh(centred @ centred.T if gram else centred.T @ centred)
    kept = min(num, len(values))
    values, vectors = values[::-1][:kept], vectors.T[::-1][:kept]
    found = vectors @ centred if gram else vectors
    # A variance that is zero up to rounding has no direction.
    real = values > 1e-12 * max(total, np.finfo(float).tiny)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    axes[:kept][real] = (found / np.where(length > 0, length, 1))[real]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    axes *= np.where(largest < 0, -1.0, 1.0)
    along = centred @ axes.T
    share = np.square(along).sum(axis=0) / total if total else np.full(num, np.nan)
    return Plane(along.reshape(*np.shape(states)[:-1], num), share, mean, axes)
