"""Which qconfig a module of the fused model has: the rules of QConfigMapping, for modules that fusion made."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator

from torch import nn

from bpu_fx_fusion import FoldedLinear, FusedModule, GraphModuleWithAttr, type_as_written
from bpu_qconfig import QConfig, QConfigMapping, as_qconfig

from ..torch_ao import own_type

__all__ = ["QConfigResolver"]


class QConfigResolver:
    """Answers by path for one fused model.

    Args:
        gm: the fused model.
        mapping: what the user wrote.
    """

    def __init__(self, gm: GraphModuleWithAttr, mapping: QConfigMapping) -> None:
        self.gm, self.given, self.mapping = gm, mapping, with_own_types(mapping)
        self.modules = dict(gm.named_modules(remove_duplicate=False))

    def qconfig_of(self, path: str, module: nn.Module) -> QConfig | None:
        """Return the qconfig of a module.

        A fused module asks for its members in order, the layer with weights first; a module that stands for a function
        goes by its own name and type, then by the module whose forward called the function.
        """
        if hasattr(module, "qconfig"):
            return as_qconfig(module.qconfig)
        members = self.gm.fused_modules.get(path, (path,))
        for member in members:
            if member in self.mapping.module_names:
                return self.mapping.module_names[member]
        first = members[0]
        layer = getattr(module, "conv", module) if isinstance(module, FusedModule) else module
        owner = self.gm.generated_modules.get(first)
        chain = list(self.parents(first))
        if owner:
            chain = [*self.parents(owner), (owner, self.modules[owner])]
        return self._mapping_for(layer).resolve(first, [*chain, (first, layer)])

    def _mapping_for(self, layer: nn.Module) -> QConfigMapping:
        """Return the mapping; for a layer that was written along one axis, with the entry of that type for its own."""
        written = type_as_written(layer)
        if written is type(layer):
            return self.mapping
        types = {kind: qconfig for kind, qconfig in self.mapping.module_types.items() if kind is not type(layer)}
        if written in types:
            types[type(layer)] = types[written]
        return dataclasses.replace(self.mapping, module_types=types)

    def given_explicitly(self, path: str, module: nn.Module) -> bool:
        """Whether a qconfig was given to a module or to one around it below the root, rather than to all."""
        around = [*[*self.parents(path)][1:], (path, module)]
        return any(hasattr(each, "qconfig") or name in self.mapping.module_names for name, each in around)

    def parents(self, path: str) -> Iterator[tuple[str, nn.Module]]:
        """Yield (path, module) of the modules around one, from the root."""
        yield "", self.gm
        parts = path.split(".")
        for length in range(1, len(parts)):
            prefix = ".".join(parts[:length])
            if prefix in self.modules:
                yield prefix, self.modules[prefix]

    def warn_unused(self, model: nn.Module, stacklevel: int) -> None:
        """Warn of entries that match nothing, neither in the model as the user wrote it nor as it was fused."""
        fused = {(entry.key, entry.entry) for entry in self.given.unused(self.gm)}
        for entry in self.given.unused(model):
            if (entry.key, entry.entry) in fused:
                warnings.warn(str(entry), stacklevel=stacklevel + 1)


def with_own_types(mapping: QConfigMapping) -> QConfigMapping:
    """Return the mapping with entries for the types that take the place of the named ones in a fused model."""
    types = dict(mapping.module_types)
    for named, qconfig in mapping.module_types.items():
        types.setdefault(own_type(named), qconfig)
        if named is nn.Linear:
            types.setdefault(FoldedLinear, qconfig)
    return dataclasses.replace(mapping, module_types=types)
