"""March state, observers, fake quantization and qconfigs for BPU quantization-aware training."""

from __future__ import annotations

from .defaults import (
    FAKE_QUANTS,
    OBSERVERS,
    default_8bit_fake_quant,
    default_calib_8bit_fake_quant_qconfig,
    default_calib_8bit_weight_16bit_act_fake_quant_qconfig,
    default_calib_8bit_weight_32bit_out_fake_quant_qconfig,
    default_calib_out_8bit_fake_quant_qconfig,
    default_qat_8bit_fake_quant_qconfig,
    default_qat_8bit_lsq_quant_qconfig,
    default_qat_8bit_weight_16bit_act_fake_quant_qconfig,
    default_qat_8bit_weight_32bit_out_fake_quant_qconfig,
    default_qat_out_8bit_fake_quant_qconfig,
    default_weight_8bit_fake_quant,
    get_default_calib_qconfig,
    get_default_qat_out_qconfig,
    get_default_qat_qconfig,
    get_default_qconfig,
    per_channel_qat_8bit_qconfig,
)
from .errors import (
    BpuQConfigError,
    FakeQuantStateWarning,
    InvalidQConfigError,
    MarchNotSetError,
    ObservationError,
)
from .fake_quantize import FakeQuantize
from .learned import LearnableFakeQuantize, PACTFakeQuantize
from .learned import LearnableFakeQuantize as _LearnableFakeQuantize
from .mapping import QConfigMapping, UnusedEntry
from .march import March, get_march, march_scope, set_march
from .observers import (
    ClipObserver,
    ClipStd,
    ClipStdObserver,
    FixedScaleObserver,
    KLObserver,
    MinMaxObserver,
    MixObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    MovingAveragePerTensorMinMaxObserver,
    MSEObserver,
    Observer,
    PercentileObserver,
    PerChannelMinMaxObserver,
)
from .partial import Partial
from .qconfig import FakeQuantFactory, QConfig, as_qconfig
from .scale import SMALLEST_SCALE, scale_from_range
from .state import FakeQuantState, ObserverCopy, load_observer_params, set_fake_quantize
from .synchronize import synchronize_observers
from .validate import Problem, check_qconfig_for_march

__all__ = [
    "FAKE_QUANTS",
    "OBSERVERS",
    "SMALLEST_SCALE",
    "BpuQConfigError",
    "ClipObserver",
    "ClipStd",
    "ClipStdObserver",
    "FakeQuantFactory",
    "FakeQuantState",
    "FakeQuantStateWarning",
    "FakeQuantize",
    "FixedScaleObserver",
    "InvalidQConfigError",
    "KLObserver",
    "LearnableFakeQuantize",
    "MSEObserver",
    "March",
    "MarchNotSetError",
    "MinMaxObserver",
    "MixObserver",
    "MovingAverageMinMaxObserver",
    "MovingAveragePerChannelMinMaxObserver",
    "MovingAveragePerTensorMinMaxObserver",
    "ObservationError",
    "Observer",
    "ObserverCopy",
    "PACTFakeQuantize",
    "Partial",
    "PerChannelMinMaxObserver",
    "PercentileObserver",
    "Problem",
    "QConfig",
    "QConfigMapping",
    "UnusedEntry",
    "_LearnableFakeQuantize",
    "as_qconfig",
    "check_qconfig_for_march",
    "default_8bit_fake_quant",
    "default_calib_8bit_fake_quant_qconfig",
    "default_calib_8bit_weight_16bit_act_fake_quant_qconfig",
    "default_calib_8bit_weight_32bit_out_fake_quant_qconfig",
    "default_calib_out_8bit_fake_quant_qconfig",
    "default_qat_8bit_fake_quant_qconfig",
    "default_qat_8bit_lsq_quant_qconfig",
    "default_qat_8bit_weight_16bit_act_fake_quant_qconfig",
    "default_qat_8bit_weight_32bit_out_fake_quant_qconfig",
    "default_qat_out_8bit_fake_quant_qconfig",
    "default_weight_8bit_fake_quant",
    "get_default_calib_qconfig",
    "get_default_qat_out_qconfig",
    "get_default_qat_qconfig",
    "get_default_qconfig",
    "get_march",
    "load_observer_params",
    "march_scope",
    "per_channel_qat_8bit_qconfig",
    "scale_from_range",
    "set_fake_quantize",
    "set_march",
    "synchronize_observers",
]
