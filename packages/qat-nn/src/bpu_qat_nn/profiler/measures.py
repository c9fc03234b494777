"""SIMILARITIES: how alike two feature maps are, each measure with its threshold and which way is better."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ArgumentError

__all__ = ["SIMILARITIES", "Similarity", "SimilarityFunction", "similarity_of"]

SimilarityFunction = Callable[[Tensor, Tensor], Tensor | float]
"""Takes the reference and the tensor in question, float32 of one shape."""


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """A measure."""

    name: str
    function: SimilarityFunction
    threshold: float | None
    """Beyond it a place is marked; None: nothing is."""
    more_is_better: bool
    best: float = 0.0
    """What equal tensors give, as far as it is finite: where bars of a chart start."""

    def of(self, reference: Tensor, tensor: Tensor) -> float:
        """Measure."""
        return float(self.function(reference, tensor))

    def is_bad(self, value: float) -> bool:
        """Whether a value lies beyond the threshold."""
        if self.threshold is None:
            return False
        return not (value >= self.threshold if self.more_is_better else value <= self.threshold)


def _cosine(reference: Tensor, tensor: Tensor) -> float:
    """Cosine of the angle between the two as vectors; of two that are zero 1, if only one is 0."""
    x, y = reference.flatten().double(), tensor.flatten().double()
    norms = float(x.norm() * y.norm())
    if norms == 0.0:
        return float(torch.equal(x, y))
    return min(1.0, float(x @ y) / norms)


def _kl(reference: Tensor, tensor: Tensor) -> Tensor:
    """Kullback-Leibler divergence, in nats, of the softmax of a sample's elements; mean of the samples."""
    x, y = (each.double().reshape(len(each) if each.dim() > 1 else 1, -1) for each in (reference, tensor))
    return F.kl_div(y.log_softmax(1), x.log_softmax(1), reduction="batchmean", log_target=True)


def _sqnr(reference: Tensor, tensor: Tensor) -> float:
    """Signal to quantization noise ratio in dB, ``10 log10(|x|^2 / |x - y|^2)``; infinite if they are equal."""
    signal = float(reference.double().square().sum())
    noise = float((reference.double() - tensor.double()).square().sum())
    if noise == 0.0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


SIMILARITIES: dict[str, Similarity] = {
    "Cosine": Similarity(name="Cosine", function=_cosine, threshold=0.99, more_is_better=True, best=1.0),
    "MSE": Similarity(name="MSE", function=F.mse_loss, threshold=None, more_is_better=False),
    "L1": Similarity(name="L1", function=F.l1_loss, threshold=None, more_is_better=False),
    "KL": Similarity(name="KL", function=_kl, threshold=None, more_is_better=False),
    "SQNR": Similarity(name="SQNR", function=_sqnr, threshold=15.0, more_is_better=True),
}
"""Name -> measure."""


def similarity_of(given: str | SimilarityFunction, threshold: float | None = None) -> Similarity:
    """Return the measure that a user means.

    Args:
        given: a name of SIMILARITIES, or a function; what it gives is taken to be an error, smaller is better.
        threshold: instead of the measure's own.

    Raises:
        ArgumentError: there is no measure of this name.
    """
    if isinstance(given, str):
        if given not in SIMILARITIES:
            raise ArgumentError(f"expected a function or one of {list(SIMILARITIES)}, got {given!r}")
        found = SIMILARITIES[given]
    else:
        name = getattr(given, "__name__", type(given).__name__)
        found = Similarity(name=name, function=given, threshold=None, more_is_better=False)
    if threshold is None:
        return found
    return replace(found, threshold=threshold)
