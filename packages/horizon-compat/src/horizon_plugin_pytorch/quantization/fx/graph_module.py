"""The graph modules of the stages: fused, prepared, converted."""

from __future__ import annotations

from bpu_fx_fusion import GraphModuleWithAttr as GraphModuleWithAttr
from bpu_qat_nn import ObservedGraphModule as ObservedGraphModule
from bpu_qat_nn import QuantizedGraphModule as QuantizedGraphModule
