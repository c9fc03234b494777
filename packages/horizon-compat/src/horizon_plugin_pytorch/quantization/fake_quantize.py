"""FakeQuantize, its relatives with a learned scale, and the states of a prepared model."""

from __future__ import annotations

from bpu_qconfig import FakeQuantize as FakeQuantize
from bpu_qconfig import FakeQuantState as FakeQuantState
from bpu_qconfig import PACTFakeQuantize as PACTFakeQuantize
from bpu_qconfig import _LearnableFakeQuantize as _LearnableFakeQuantize
from bpu_qconfig import default_8bit_fake_quant as default_8bit_fake_quant
from bpu_qconfig import default_weight_8bit_fake_quant as default_weight_8bit_fake_quant
from bpu_qconfig import set_fake_quantize as set_fake_quantize

from ..unavailable import explain_missing

__getattr__ = explain_missing(__name__)
