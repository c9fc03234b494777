"""Record converted models of the eager mode: their own forward runs on the stand-ins, operator by operator."""

from __future__ import annotations

from typing import Any

from torch import nn

from bpu_fx_fusion import copy_structure, replace_module
from bpu_kernels.march import MarchRow
from bpu_qat_nn import BpuQatError, QuantizedModule
from bpu_qat_nn.ops.stubs import QuantizedDeQuantStub

from ..errors import LoweringError
from .recorder import Recorder

__all__ = ["announcing", "row_of_converted"]


def row_of_converted(model: nn.Module) -> MarchRow | None:
    """Return the march's row that a model was converted for; None if it is no converted model."""
    rows = [module.row for module in model.modules() if isinstance(module, QuantizedModule) and hasattr(module, "row")]
    return next(iter(rows), None)


def announcing(model: nn.Module, recorder: Recorder) -> nn.Module:
    """Return a copy of the model whose operators tell the recorder their paths before they compute."""
    copied = copy_structure(model)
    for path, module in model.named_modules():
        if isinstance(module, (QuantizedModule, QuantizedDeQuantStub)):
            replace_module(copied, module, _Announced(module, path, recorder))
    return copied


class _Announced(nn.Module):
    """Stands for an operator: what is called of it runs under its path, and errors name it."""

    def __init__(self, module: nn.Module, path: str, recorder: Recorder) -> None:
        super().__init__()
        vars(self).update(stands_for=module, path=path, recorder=recorder)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the operator."""
        return self._run(self.stands_for, *args, **kwargs)

    def _run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        self.recorder.path = self.path
        try:
            result = function(*args, **kwargs)
        except (LoweringError, BpuQatError) as error:
            raise LoweringError(f"{self.path}: {error}") from error
        self.recorder.note(self.path, result)
        return result

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.stands_for, name)
        return (lambda *args, **kwargs: self._run(found, *args, **kwargs)) if callable(found) else found
