"""BatchNorm statistics anew: running mean and variance as averages over given batches, nothing else changes.

For a float model whose data has changed, and for a model under training with ``QATMode.WithBN``: there the statistics
trail behind quantized weights that jump between steps (Nagel et al., "Overcoming oscillations in quantization-aware
training", 2022, section 4.2).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from bpu_fx_fusion import BATCH_NORMS

from ..errors import ArgumentError
from .forward import run_batches

__all__ = ["reestimate_batch_norm"]

ENOUGH = 1000
"""So many images may replace statistics as a whole; with thirteen, a pretrained net lost every right answer."""


def reestimate_batch_norm(model: nn.Module, batches: Iterable[Any], *, share: float = 1.0) -> int:
    """Set running statistics to the averages over the batches; in place.

    Everything but the BatchNorms runs in evaluation mode. States of fake quantization stay as they are: in QAT or
    VALIDATION state the statistics are those behind quantized layers.

    Warns (UserWarning) where fewer than ``ENOUGH * share`` images were given.

    Args:
        model: a float model, or one prepared with ``QATMode.WithBN``.
        batches: several, large ones: variance is estimated within each.
        share: of the new statistics, 0 to 1; the rest are the old ones, which few data should not outweigh.

    Returns:
        The number of BatchNorms.

    Raises:
        ArgumentError: the model has no BatchNorm with running statistics, or there are no batches. Whatever is raised,
            the statistics are as before.
    """
    norms: list[Any] = [
        module
        for module in model.modules()
        if isinstance(module, BATCH_NORMS) and module.track_running_stats and module.running_mean is not None
    ]
    if not norms:
        raise ArgumentError(
            "the model has no BatchNorm with running statistics; they are folded when it is prepared, unless under "
            "set_qat_mode(QATMode.WithBN)"
        )
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    before = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's sign for the plain average over batches
        norm.train()
    try:
        with torch.no_grad():
            images = run_batches(model, batches)
    except BaseException:
        for norm, statistics in zip(norms, before, strict=True):
            norm.load_state_dict(statistics, strict=False)
        raise
    finally:
        for module, training in modes:
            module.training = training
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    if images < ENOUGH * share:
        warnings.warn(
            f"reestimate_batch_norm replaced {share:.0%} of the statistics by those of {images} images, which are "
            f"few: give {ENOUGH * share:.0f} or more, or share={images / ENOUGH:.2g}",
            UserWarning,
            stacklevel=2,
        )
    with torch.no_grad():
        for norm, statistics in zip(norms, before, strict=True):
            for name in ("running_mean", "running_var"):
                new = norm.get_buffer(name)
                new.copy_(torch.lerp(statistics[name], new, share))
    return len(norms)
