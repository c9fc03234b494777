"""Quantization: stubs, qconfigs, observers, states, and the way from a float model to one on integers."""

from __future__ import annotations

from bpu_deploy_tools import check_model as check_model
from bpu_deploy_tools import compile_model as compile_model
from bpu_deploy_tools import export_hbir as export_hbir
from bpu_deploy_tools import perf_model as perf_model
from bpu_deploy_tools import visualize_model as visualize_model
from bpu_fx_fusion import ConvBNAddedReLUFusion as ConvBNAddedReLUFusion
from bpu_fx_fusion import ConvBNAddReLUFusion as ConvBNAddReLUFusion
from bpu_fx_fusion import MatchAllNode as MatchAllNode
from bpu_fx_fusion import fuse_fx as fuse_fx
from bpu_fx_fusion import register_fusion_pattern as register_fusion_pattern
from bpu_qat_nn import DeQuantStub as DeQuantStub
from bpu_qat_nn import QuantStub as QuantStub
from bpu_qat_nn import convert as convert
from bpu_qat_nn import convert_fx as convert_fx
from bpu_qat_nn import fuse_known_modules as fuse_known_modules
from bpu_qat_nn import fuse_modules as fuse_modules
from bpu_qat_nn import prepare_calibration as prepare_calibration
from bpu_qat_nn import prepare_calibration_fx as prepare_calibration_fx
from bpu_qat_nn import prepare_qat as prepare_qat
from bpu_qat_nn import prepare_qat_fx as prepare_qat_fx
from bpu_qconfig import FakeQuantize as FakeQuantize
from bpu_qconfig import FakeQuantState as FakeQuantState
from bpu_qconfig import FixedScaleObserver as FixedScaleObserver
from bpu_qconfig import March as March
from bpu_qconfig import MovingAverageMinMaxObserver as MovingAverageMinMaxObserver
from bpu_qconfig import MovingAveragePerChannelMinMaxObserver as MovingAveragePerChannelMinMaxObserver
from bpu_qconfig import MovingAveragePerTensorMinMaxObserver as MovingAveragePerTensorMinMaxObserver
from bpu_qconfig import PACTFakeQuantize as PACTFakeQuantize
from bpu_qconfig import PerChannelMinMaxObserver as PerChannelMinMaxObserver
from bpu_qconfig import QConfig as QConfig
from bpu_qconfig import _LearnableFakeQuantize as _LearnableFakeQuantize
from bpu_qconfig import default_8bit_fake_quant as default_8bit_fake_quant
from bpu_qconfig import default_calib_8bit_fake_quant_qconfig as default_calib_8bit_fake_quant_qconfig
from bpu_qconfig import (
    default_calib_8bit_weight_16bit_act_fake_quant_qconfig as default_calib_8bit_weight_16bit_act_fake_quant_qconfig,
)
from bpu_qconfig import (
    default_calib_8bit_weight_32bit_out_fake_quant_qconfig as default_calib_8bit_weight_32bit_out_fake_quant_qconfig,
)
from bpu_qconfig import default_calib_out_8bit_fake_quant_qconfig as default_calib_out_8bit_fake_quant_qconfig
from bpu_qconfig import default_qat_8bit_fake_quant_qconfig as default_qat_8bit_fake_quant_qconfig
from bpu_qconfig import default_qat_8bit_lsq_quant_qconfig as default_qat_8bit_lsq_quant_qconfig
from bpu_qconfig import (
    default_qat_8bit_weight_16bit_act_fake_quant_qconfig as default_qat_8bit_weight_16bit_act_fake_quant_qconfig,
)
from bpu_qconfig import (
    default_qat_8bit_weight_32bit_out_fake_quant_qconfig as default_qat_8bit_weight_32bit_out_fake_quant_qconfig,
)
from bpu_qconfig import default_qat_out_8bit_fake_quant_qconfig as default_qat_out_8bit_fake_quant_qconfig
from bpu_qconfig import default_weight_8bit_fake_quant as default_weight_8bit_fake_quant
from bpu_qconfig import get_default_calib_qconfig as get_default_calib_qconfig
from bpu_qconfig import get_default_qat_out_qconfig as get_default_qat_out_qconfig
from bpu_qconfig import get_default_qat_qconfig as get_default_qat_qconfig
from bpu_qconfig import get_default_qconfig as get_default_qconfig
from bpu_qconfig import load_observer_params as load_observer_params
from bpu_qconfig import per_channel_qat_8bit_qconfig as per_channel_qat_8bit_qconfig
from bpu_qconfig import set_fake_quantize as set_fake_quantize

from ..unavailable import explain_missing
from . import fake_quantize as fake_quantize
from . import fx as fx
from . import observer as observer
from . import observer_v2 as observer_v2
from . import qconfig as qconfig
from . import quantize_fx as quantize_fx

__getattr__ = explain_missing(__name__)
