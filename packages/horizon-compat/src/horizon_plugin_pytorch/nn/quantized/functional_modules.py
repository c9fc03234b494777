"""FloatFunctional, arithmetic between tensors as a module, and its form on integers."""

from __future__ import annotations

from bpu_fx_fusion import FloatFunctional as FloatFunctional
from bpu_qat_nn import QFunctional as QFunctional
