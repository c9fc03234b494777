"""UNAVAILABLE: the names that the vendor's plugin documents and this version does not have, and what to do instead."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from .errors import NotAvailableError, NotImportableError

__all__ = ["UNAVAILABLE", "explain_missing"]

_ONNX = "onnx_helper.export_to_onnx registers nothing and needs nothing registered"
_EAGER_CALIBRATION = (
    "use prepare_qat_fx with a calibration qconfig, then model.eval() and "
    "set_fake_quantize(model, FakeQuantState.CALIBRATION)"
)
_NEWER = "this is the generation of prepare_qat_fx and convert_fx; use those"
_QCONFIG_DICT = 'give prepare_qat_fx a qconfig_dict: {"": ..., "module_type": [...], "module_name": [...]}'
_HISTOGRAM = "use observer_v2.PercentileObserver or observer_v2.MSEObserver"

UNAVAILABLE: dict[str, dict[str, str]] = {
    "horizon_plugin_pytorch.march": {
        "is_nash_series": "no nash march is supported; list(March) names those that are",
    },
    "horizon_plugin_pytorch.dtype": {
        "qbool": "comparisons give masks of qint8, 0 and 1 with scale 1",
        "qint4": "the types are qint8, qint16 and qint32",
    },
    "horizon_plugin_pytorch.qat_mode": {
        "ConsistencyStrategy": "there is nothing to choose: VALIDATION state equals the board",
    },
    "horizon_plugin_pytorch.quantization": {
        "CalibObserver": "use MovingAverageMinMaxObserver, or one of observer_v2",
        "HistogramObserver": _HISTOGRAM,
        "PrepareMethod": _NEWER,
        "QconfigSetter": _QCONFIG_DICT,
        "auto_calibrate": _EAGER_CALIBRATION,
        "freeze_qat_module": "set_fake_quantize(module, FakeQuantState.VALIDATION) keeps the scales of a module",
        "get_qconfig": "use get_default_qconfig",
        "load_calib_state_dict": "use qat_model.load_state_dict(calib_model.state_dict()), or load_observer_params",
        "prepare": _NEWER,
        "qconfig_template": _QCONFIG_DICT,
    },
    "horizon_plugin_pytorch.quantization.observer": {
        "CalibObserver": "use MovingAverageMinMaxObserver, or one of observer_v2",
    },
    "horizon_plugin_pytorch.quantization.observer_v2": {
        "HistogramObserver": _HISTOGRAM,
    },
    "horizon_plugin_pytorch.quantization.fake_quantize": {
        "DynamicFakeQuantize": "use FakeQuantize",
        "FakeCast": "there is no half-precision operator; set the qconfig of float modules to None",
    },
    "horizon_plugin_pytorch.fx.fx_helper": {
        "get_supported_method": "bpu_fx_fusion.RECIPES lists the functions that become modules",
        "replace_torch_op": "functions become modules by the table bpu_fx_fusion.RECIPES; wrap what shall stay",
    },
    "horizon_plugin_pytorch.utils": {
        "_register_onnx_ops": _ONNX,
    },
}
"""Module -> documented name -> what to do instead. A name that comes to exist leaves this table; a test sees to it."""


def explain_missing(module: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module: it raises what UNAVAILABLE says, and the usual error for other names."""

    def missing(name: str) -> Any:
        instead = UNAVAILABLE[module].get(name)
        if instead is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        message = (
            f"{module}.{name} is documented for the vendor's horizon_plugin_pytorch, but not available in this "
            f"version: {instead}"
        )
        if _imports_a_name(sys._getframe(1)):
            raise NotImportableError(message, name=module)
        raise NotAvailableError(message)

    return missing


def _imports_a_name(frame: FrameType) -> bool:
    """Whether a frame is at ``from module import name``, where Python drops the text of an AttributeError."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] == "IMPORT_FROM"
