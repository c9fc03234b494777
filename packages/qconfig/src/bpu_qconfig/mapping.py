"""qconfig_dict: which module of a model gets which qconfig."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from .errors import InvalidQConfigError
from .qconfig import QConfig, as_qconfig

__all__ = ["QConfigMapping", "UnusedEntry"]

_KEYS = ("", "module_type", "module_name")


@dataclass(frozen=True, kw_only=True)
class UnusedEntry:
    """An entry of a qconfig_dict that matches nothing in a model."""

    key: str
    """``"module_type"`` or ``"module_name"``."""
    entry: str
    """What the user wrote."""
    suggestions: tuple[str, ...]
    """Similar names that the model has."""

    def __str__(self) -> str:
        hint = f"; did you mean {' or '.join(map(repr, self.suggestions))}?" if self.suggestions else ""
        return f"{self.key} {self.entry!r} matches nothing in the model{hint}"


@dataclass(frozen=True, kw_only=True)
class QConfigMapping:
    """A qconfig_dict, checked and frozen.

    A module takes its qconfig from the first of these that exists:

    ====  =====================================================================================
    rank  source
    ====  =====================================================================================
    1     the module itself: its attribute ``qconfig``, then its ``module_name`` entry
    2     its nearest ancestor that has either, in the same order
    3     the ``module_type`` entry of its own type (exactly that type, no subclasses)
    4     the ``module_type`` entry of its nearest ancestor that has one
    5     the global entry ``""``
    ====  =====================================================================================

    None is a qconfig as well: it leaves the module in float. Without any source the module stays in float too.
    """

    default: QConfig | None = None
    """The entry ``""``."""
    module_types: Mapping[type[nn.Module], QConfig | None]
    """The entries ``"module_type"``."""
    module_names: Mapping[str, QConfig | None]
    """The entries ``"module_name"``."""

    @classmethod
    def from_dict(cls, qconfig_dict: Mapping[str, Any] | QConfigMapping | None) -> QConfigMapping:
        """Read ``{"": qconfig, "module_type": entries, "module_name": entries}``.

        All keys are optional. Entries are a dict, or a list of pairs, from type or path to qconfig or None.

        Raises:
            InvalidQConfigError: an unknown key, something that is no qconfig, a type where a path belongs or the
                reverse, or two entries for the same thing.
        """
        if isinstance(qconfig_dict, QConfigMapping):
            return qconfig_dict
        given = {} if qconfig_dict is None else qconfig_dict
        if not isinstance(given, Mapping):
            raise InvalidQConfigError(f"expected a qconfig_dict, got {given!r}; a global qconfig goes under the key ''")
        for key in given:
            if key not in _KEYS:
                known = ", ".join(map(repr, _KEYS))
                raise InvalidQConfigError(f"unknown key {key!r} in qconfig_dict; known are {known}{_hint(key, _KEYS)}")
        return cls(
            default=as_qconfig(given.get("")),
            module_types=_entries("module_type", given.get("module_type", ()), _is_module_type, "a module class"),
            module_names=_entries("module_name", given.get("module_name", ()), _is_path, "a module path"),
        )

    def resolve(self, path: str, chain: Sequence[tuple[str, nn.Module]]) -> QConfig | None:
        """Return the qconfig of a module, or of an operation inside a module, or None to leave it in float.

        Args:
            path: its path; that of a generated module need not exist in the model yet.
            chain: (path, module) of all modules from the root, path ``""``, to the module, or to the owner of the
                operation.

        Raises:
            InvalidQConfigError: a ``qconfig`` attribute on the way is no qconfig.
        """
        if path in self.module_names and path not in (known for known, _ in chain):
            return self.module_names[path]
        for known, module in reversed(chain):
            if hasattr(module, "qconfig"):
                return as_qconfig(module.qconfig)
            if known in self.module_names:
                return self.module_names[known]
        for _, module in reversed(chain):
            if type(module) in self.module_types:
                return self.module_types[type(module)]
        return self.default

    def unused(self, model: nn.Module) -> tuple[UnusedEntry, ...]:
        """Return the entries that match no module of a model, with similar names."""
        modules = dict(model.named_modules(remove_duplicate=False))
        types = {type(module) for module in modules.values()}
        type_names = sorted({found.__name__ for found in types})
        return (
            *(
                UnusedEntry(key="module_type", entry=cls.__name__, suggestions=_similar(cls.__name__, type_names))
                for cls in self.module_types
                if cls not in types
            ),
            *(
                UnusedEntry(key="module_name", entry=name, suggestions=_similar(name, modules))
                for name in self.module_names
                if name not in modules
            ),
        )


def _entries(key: str, given: Any, belongs: Callable[[object], bool], expected: str) -> Mapping[Any, QConfig | None]:
    pairs = given.items() if isinstance(given, Mapping) else given
    entries: dict[Any, QConfig | None] = {}
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InvalidQConfigError(f"{key}: expected pairs of {expected} and a qconfig, got {pair!r}")
        target, qconfig = pair
        if not belongs(target):
            raise InvalidQConfigError(f"{key}: expected {expected}, got {target!r}")
        if target in entries:
            raise InvalidQConfigError(f"{key}: two entries for {target!r}; keep one")
        entries[target] = as_qconfig(qconfig)
    return MappingProxyType(entries)


def _is_module_type(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _is_path(value: object) -> bool:
    return isinstance(value, str)


def _similar(name: str, known: Iterable[str]) -> tuple[str, ...]:
    return tuple(difflib.get_close_matches(name, [other for other in known if other], n=2))


def _hint(key: object, known: Iterable[str]) -> str:
    similar = _similar(str(key), known)
    return f"; did you mean {similar[0]!r}?" if similar else ""
