"""Logistic regression of few features, for chances that Q predicts."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ptrm_jax.errors import InputError

Floats = NDArray[np.float64]


class Logistic(NamedTuple):
    """A fitted chance: the sigmoid of a linear function of standardised features.

    Attributes:
      centre: [F] float64, subtracted from the features.
      scale: [F] float64, which then divides them.
      weights: [F + 1] float64, the constant first.
    """

    centre: Floats
    scale: Floats
    weights: Floats

    def logit(self, features: NDArray) -> Floats:
        """[...] logits of features, [..., F]."""
        return self.weights[0] + ((features - self.centre) / self.scale) @ self.weights[1:]

    def __call__(self, features: NDArray) -> Floats:
        """[...] chances in [0, 1] of features, [..., F]."""
        return expit(self.logit(features))


def fit_logistic(features: NDArray, happened: NDArray, *, ridge: float = 1.0) -> Logistic:
    """The penalised maximum of the likelihood, by Newton's method.

    Args:
      features: [N, F] float, finite.
      happened: [N] bool.
      ridge: half of it times the squared length of the weights, without the constant, is
        subtracted from the log-likelihood. It keeps the weights finite where the features separate
        what happened from what did not.

    Raises:
      InputError: everything happened, or nothing did.
    """
    features, target = np.asarray(features, np.float64), np.asarray(happened, np.float64)
    if len(target) == 0 or target.min() == target.max():
        raise InputError(
            f"a chance needs cases that happened and others; {int(target.sum())} of {len(target)} "
            "did; calibrate on more puzzles, or on harder ones"
        )
    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    design = np.column_stack([np.ones(len(target)), (features - centre) / scale])
    penalty = np.diag([0.0, *[ridge] * features.shape[1]])
    rate = target.mean()
    weights = np.array([np.log(rate / (1 - rate)), *[0.0] * features.shape[1]])

    def objective(weights: Floats) -> float:
        logits = design @ weights
        likelihood = target @ logits - np.logaddexp(0, logits).sum()
        return float(likelihood - weights @ penalty @ weights / 2)

    reached = objective(weights)
    for _ in range(100):
        chance = expit(design @ weights)
        gradient = design.T @ (target - chance) - penalty @ weights
        curvature = (design.T * (chance * (1 - chance))) @ design + penalty
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        # A full step may overshoot far from the maximum.
        while (value := objective(weights + step)) < reached - 1e-12:
            step = step / 2
        weights, gained, reached = weights + step, value - reached, value
        if gained < 1e-10:
            break
    return Logistic(centre, scale, weights)
