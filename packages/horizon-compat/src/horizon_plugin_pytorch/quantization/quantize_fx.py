"""From a float model to one on integers: fuse_fx, prepare_qat_fx, convert_fx."""

from __future__ import annotations

from bpu_fx_fusion import fuse_fx as fuse_fx
from bpu_qat_nn import convert_fx as convert_fx
from bpu_qat_nn import prepare_qat_fx as prepare_qat_fx
