"""What may become of a function: the kinds of rows in the table of functions that become modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..modules.elementwise import Clamp
from ..modules.selection import Comparison, TopIndices, Where


@dataclass(frozen=True, kw_only=True)
class Step:
    """One module of a chain that computes an operator between a tensor and a number."""

    to: str | type[nn.Module]
    """A method of FloatFunctional that takes the tensor and a number, or a module that takes the tensor."""

    number: Callable[[float], float] | float | None = None
    """The number for the method: a constant, computed from the operator's number, or that number itself if None."""

    keyword: str | None = None
    """The constructor's argument that takes the number, for a module that has one."""


@dataclass(frozen=True, kw_only=True)
class Binary:
    """An operator between two tensors, or between a tensor and a number."""

    op: str
    """Name used for the generated module, unless it is a step's method."""

    tensors: str | type[nn.Module]
    """For two tensors: a method of FloatFunctional, or a module."""

    number_right: tuple[Step, ...] = ()
    """For `tensor op number`; empty if that stays a function."""

    number_left: tuple[Step, ...] = ()
    """For `number op tensor`; empty if that stays a function."""

    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments, and the only value for which the replacement is right."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A function that becomes a method of FloatFunctional with the same arguments."""

    op: str
    parameters: tuple[str, ...]
    required: str | None = None
    """An argument without which the call stays a function."""

    appended: tuple[float, ...] = ()
    """Arguments that the function implies."""

    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModuleForm:
    """A function that becomes a module; its arguments after the first go to the constructor under the same name."""

    op: str
    module: type[nn.Module]
    parameters: tuple[str, ...] = ()
    """Names of the arguments after the first, in order. Those of the constructor, unless listed otherwise below."""

    at_call: tuple[str, ...] = ()
    """Arguments that may be computed at run time; then the module's call receives them."""

    only: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that need not be given, and the only value for which the replacement is right."""

    training_flag: str | None = None
    """The argument that says whether the model is being trained, which the module knows by itself."""

    constants: Mapping[str, Any] = field(default_factory=dict)
    """Constructor arguments that the function implies."""

    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LayerForm:
    """A function that applies a layer's parameters; it becomes that layer if they are parameters of a module."""

    op: str
    layer: type[nn.Module]
    """A key of LAYER_PARAMETERS."""


@dataclass(frozen=True, kw_only=True)
class NormForm:
    """A function that normalizes; it becomes the module with the same tensors."""

    op: str
    """A key of NORMS."""

    module: type[nn.Module]
    """What it becomes; BatchNorm in as many dimensions as the module has whose forward calls it."""


@dataclass(frozen=True, kw_only=True)
class StackForm:
    """A function that joins tensors along a new axis: each gets the axis, then they are joined."""

    op: str = "cat"


@dataclass(frozen=True, kw_only=True)
class AddcmulForm:
    """A function that multiplies two tensors and adds a third."""

    op: str = "add"


@dataclass(frozen=True, kw_only=True)
class ClampForm:
    """A function that limits elements, by a number or a tensor each."""

    parameters: tuple[str, ...] = ("min", "max")
    """Names of the bounds, in order."""

    op: str = "clamp"
    fixed: Mapping[str, Any] = field(default_factory=dict)
    module: type[nn.Module] = Clamp
    """For numbers; a tensor is a limit by FloatFunctional.maximum or minimum."""


@dataclass(frozen=True, kw_only=True)
class EinsumForm:
    """A sum of products of two tensors by letters: a matrix product between movements."""

    op: str = "matmul"


@dataclass(frozen=True, kw_only=True)
class CompareForm:
    """A comparison of two tensors, or of a tensor with a number."""

    op: str
    module: type[Comparison]


@dataclass(frozen=True, kw_only=True)
class WhereForm:
    """A choice between two tensors, or between a tensor and a number."""

    op: str = "where"
    module: type[nn.Module] = Where


@dataclass(frozen=True, kw_only=True)
class RankedForm:
    """A function that finds the largest (or smallest) elements along an axis: their values and their indices."""

    op: str
    parameters: tuple[str, ...]
    required: str | None = "dim"
    """An argument without which the call stays a function."""

    largest: bool = True
    """Which end, unless an argument `largest` or `descending` says it."""

    gives: tuple[str, ...] = ("values", "indices")
    """What it returns; ("indices",) for a tensor of indices alone."""

    pairwise: Binary | None = None
    """What it means for two tensors."""

    fixed: Mapping[str, Any] = field(default_factory=dict)
    module: type[nn.Module] = TopIndices


Recipe = (
    StackForm
    | AddcmulForm
    | ClampForm
    | EinsumForm
    | Binary
    | Method
    | ModuleForm
    | LayerForm
    | NormForm
    | CompareForm
    | WhereForm
    | RankedForm
)
