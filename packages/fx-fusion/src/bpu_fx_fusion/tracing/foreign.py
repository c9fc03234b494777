"""Modules and functions of other packages that plain tracing gets wrong, by name: nothing of them is imported."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any, Final

from torch import nn

from ..graph.structure import replace_module
from ..modules.drop_path import DropBlock, DropPath
from ..modules.sampling import MultiScaleRoIAlign, RoIAlign
from .leaf import leaf_callable

__all__ = ["foreign_functions_recorded", "foreign_name", "replace_foreign_modules"]

_OURS: Final[Mapping[tuple[str, str], Callable[[Any], nn.Module]]] = {
    ("torchvision.ops.stochastic_depth", "StochasticDepth"): lambda module: DropPath(module.p, mode=module.mode),
    ("torchvision.ops.drop_block", "DropBlock2d"): lambda module: DropBlock(
        module.p, module.block_size, eps=module.eps
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

_KEPT_WHOLE: Final = (
    ("torchvision.ops.boxes", ("nms", "batched_nms", "masks_to_boxes", "remove_small_boxes")),
    ("torchvision.ops.deform_conv", ("deform_conv2d",)),
    ("torchvision.ops.drop_block", ("drop_block2d", "drop_block3d")),
    ("torchvision.ops.ps_roi_align", ("ps_roi_align",)),
    ("torchvision.ops.ps_roi_pool", ("ps_roi_pool",)),
    ("torchvision.ops.roi_align", ("roi_align",)),
    ("torchvision.ops.roi_pool", ("roi_pool",)),
    ("torchvision.ops.stochastic_depth", ("stochastic_depth",)),
)
"""Functions that are one node each, for the same reasons or since the number of their results depends on the data."""

_NAMES: Final = frozenset((home, name) for home, names in _KEPT_WHOLE for name in names)


def replace_foreign_modules(root: nn.Module) -> None:
    """Put our modules in the place of others', in place."""
    for module in list(root.modules()):
        make = _OURS.get((type(module).__module__, type(module).__qualname__))
        if make is not None:
            replace_module(root, module, make(module).train(module.training))


def foreign_name(function: Any) -> tuple[str, str] | None:
    """Return (module, name) of a function that is kept whole; None for any other."""
    found = (getattr(function, "__module__", ""), getattr(function, "__qualname__", ""))
    return found if found in _NAMES else None


@contextlib.contextmanager
def foreign_functions_recorded(root: nn.Module) -> Iterator[None]:
    """Let those functions record themselves wherever a module has a name for them; restore the names afterwards."""
    functions = [getattr(sys.modules[home], name, None) for home, name in _NAMES if home in sys.modules]
    recorded = {id(each): leaf_callable(each, target=each) for each in functions if isinstance(each, FunctionType)}
    restore: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for names in _namespaces(root) if recorded else ():
            for name, value in list(names.items()):
                if id(value) in recorded:
                    restore.append((names, name, value))
                    names[name] = recorded[id(value)]
        yield
    finally:
        for names, name, value in restore:
            names[name] = value


def _namespaces(root: nn.Module) -> Iterator[dict[str, Any]]:
    """Yield the globals of all modules, and of the forwards, whose module may be a script that nobody imported."""
    for module in list(sys.modules.values()):
        yield vars(module) if hasattr(module, "__dict__") else {}
    for kind in {type(module) for module in root.modules()}:
        yield getattr(kind.forward, "__globals__", {})
