"""Modules of other packages that stand for one of ours: known by name, so that nothing of them is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from torch import nn

from ..graph.structure import replace_module
from ..modules.drop_path import DropPath
from ..modules.sampling import MultiScaleRoIAlign, RoIAlign

__all__ = ["replace_foreign_modules"]

_OURS: Final[Mapping[tuple[str, str], Callable[[Any], nn.Module]]] = {
    ("torchvision.ops.stochastic_depth", "StochasticDepth"): lambda module: DropPath(
        module.p, by_row=module.mode == "row"
    ),
    ("torchvision.ops.roi_align", "RoIAlign"): lambda module: RoIAlign(
        module.output_size, module.spatial_scale, module.sampling_ratio, module.aligned
    ),
    ("torchvision.ops.poolers", "MultiScaleRoIAlign"): lambda module: MultiScaleRoIAlign(
        module.featmap_names,
        module.output_size,
        module.sampling_ratio,
        canonical_scale=module.canonical_scale,
        canonical_level=module.canonical_level,
    ),
    ("timm.layers.drop", "DropPath"): lambda module: DropPath(module.drop_prob, scales=module.scale_by_keep),
}
"""(module, class) -> makes ours: what draws random numbers, which a graph would not switch off, and compiled code."""


def replace_foreign_modules(root: nn.Module) -> None:
    """Put our modules in the place of others', in place."""
    for module in list(root.modules()):
        make = _OURS.get((type(module).__module__, type(module).__qualname__))
        if make is not None:
            replace_module(root, module, make(module).train(module.training))
