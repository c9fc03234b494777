"""What an operator is: its meaning on real values, its meaning on integers, and its row in the table.

An operator states two things once. ``real`` is the differentiable function of real values. ``steps`` is the same on
integers: which kernels run, with which parameters, for given scales. The QAT module (qat_module.py) uses ``steps`` for
its values and ``real`` for its gradient, the converted module (quantized_module.py) uses ``steps`` alone, and lowering
records the kernels that ``steps`` invokes; so the three cannot differ.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType
from bpu_kernels.march import MarchRow

from .derived import Derived
from .errors import ArgumentError, InputError
from .qtensor import QTensor

if TYPE_CHECKING:
    from .qat_module import QATModule

__all__ = ["OpRow", "Operator", "Output", "out_of_place", "type_problems"]


@dataclass(frozen=True)
class Output:
    """Scale and type that an operator's output shall have."""

    scale: Tensor
    dtype: QuantDType


class Operator:
    """What QAT and converted module share; subclasses are combined with ``QATModule`` and ``QuantizedModule``."""

    config: ClassVar[tuple[str, ...]] = ()
    """Attributes taken over from the float module."""
    fixed: ClassVar[tuple[str, ...]] = ()
    """Attributes that cannot be changed afterwards, as the operator's weights and parts were made for them; so is
    ``dtype``, which what reads the output was checked against."""
    own_scale: ClassVar[bool] = True
    """Whether the output has a scale of its own; otherwise it has the first input's."""
    keeps_grid: ClassVar[bool] = False
    """Whether ``real`` maps multiples of the scale to multiples of the scale, exactly; only without own scale."""
    axes: ClassVar[int | None] = None
    """Number of axes that inputs must have, batch and channels included; None for any."""
    options: ClassVar[frozenset[str]] = frozenset()
    """Arguments of a call that are no tensors; without them here, they are refused."""

    row: MarchRow
    derived: Derived
    path: str = ""
    """Where the module is in its model, for messages."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; what was derived under the settings before is forgotten.

        Raises:
            ArgumentError: the attribute is fixed.
        """
        own = vars(self)
        if name in own and own[name] is value:
            return
        if name in (*self.fixed, "dtype") and name in own and own[name] != value:
            raise ArgumentError(
                f"{self.label}: {name} is decided when the model is prepared, and stays {own[name]}, got {value}; "
                "change the float model or its qconfig, then prepare and convert again"
            )
        if "derived" in own and name != "derived":
            self.derived.forget()
        super().__setattr__(name, value)

    def configure(self, source: nn.Module) -> None:
        """Take over what the operator needs of the float or QAT module."""
        for name in self.config:
            setattr(self, name, getattr(source, name))

    def real(self, *inputs: Any) -> Tensor:
        """Compute on real values, differentiably."""
        raise NotImplementedError

    def steps(self, out: Output, *inputs: Any) -> QTensor:
        """Compute on integers by invoking kernels (``inputs[0].invoke``)."""
        raise NotImplementedError

    def expect_axes(self, inputs: Sequence[QTensor]) -> None:
        """Raise InputError unless every input has as many axes as the operator needs."""
        for x in inputs:
            if self.axes is not None and len(x.shape) != self.axes:
                raise InputError(
                    f"{self.label} expected a tensor of {self.axes} axes (batch, channels, {self.axes - 2} of space), "
                    f"got the shape {tuple(x.shape)}; x.unsqueeze(0) adds a batch"
                )

    @property
    def label(self) -> str:
        """Path and kind, for messages."""
        kind = type(self).__name__.removeprefix("QAT").removeprefix("Quantized")
        return f"{self.path} ({kind})" if self.path else kind

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Return what the march refuses of a float module, each as a phrase that can follow "refuses".

        Args:
            module: the float module.
            row: the march.
            dtype: type of the output.
            inputs: types of the inputs, None where only running tells; not given, they are not looked at.
        """
        return type_problems(inputs, row.activations)


def out_of_place(module: nn.Module) -> nn.Module:
    """Return a copy of a float module that does not overwrite its input, which others may use."""
    copied: nn.Module = copy.copy(module)
    if hasattr(copied, "inplace"):
        vars(copied)["inplace"] = False
    return copied


def type_problems(inputs: Sequence[QuantDType | None], allowed: Sequence[QuantDType]) -> list[str]:
    """Return a phrase for each type among the inputs that is not allowed."""
    names = ", ".join(map(str, allowed))
    wrong = dict.fromkeys(dtype for dtype in inputs if dtype is not None and dtype not in allowed)
    return [f"input type {dtype} (allowed: {names})" for dtype in wrong]


@dataclass(frozen=True, kw_only=True)
class OpRow:
    """One row of OPS: the float modules that an operator accepts, and its QAT form."""

    name: str
    floats: tuple[type[nn.Module], ...]
    qat: type[QATModule]
    kernels: tuple[str, ...]
    """Names of the kernels that it may lower to."""
    note: str = ""
    """What a user should know, for docs/operators.md."""
