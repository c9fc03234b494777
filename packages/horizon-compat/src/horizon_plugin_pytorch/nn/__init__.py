"""Float modules for functions that torch.nn has no module for, detection, and the modules of later stages."""

from __future__ import annotations

from bpu_fx_fusion import Acos as Acos
from bpu_fx_fusion import Acosh as Acosh
from bpu_fx_fusion import Asin as Asin
from bpu_fx_fusion import Asinh as Asinh
from bpu_fx_fusion import Atan as Atan
from bpu_fx_fusion import Atanh as Atanh
from bpu_fx_fusion import Ceil as Ceil
from bpu_fx_fusion import ChannelShuffle as ChannelShuffle
from bpu_fx_fusion import Correlation as Correlation
from bpu_fx_fusion import Cos as Cos
from bpu_fx_fusion import Cosh as Cosh
from bpu_fx_fusion import Div as Div
from bpu_fx_fusion import Erf as Erf
from bpu_fx_fusion import Exp as Exp
from bpu_fx_fusion import Floor as Floor
from bpu_fx_fusion import GridSample as GridSample
from bpu_fx_fusion import HardLog as HardLog
from bpu_fx_fusion import Interpolate as Interpolate
from bpu_fx_fusion import LayerNorm as LayerNorm
from bpu_fx_fusion import MultiScaleRoIAlign as MultiScaleRoIAlign
from bpu_fx_fusion import Pow as Pow
from bpu_fx_fusion import Reciprocal as Reciprocal
from bpu_fx_fusion import Selu as Selu
from bpu_fx_fusion import Sin as Sin
from bpu_fx_fusion import Sinh as Sinh
from bpu_fx_fusion import Sqrt as Sqrt
from bpu_fx_fusion import Tan as Tan
from bpu_qat_nn import BgrToYuv444 as BgrToYuv444
from bpu_qat_nn.detection import AnchorGenerator as AnchorGenerator
from bpu_qat_nn.detection import DetectionPostProcess as DetectionPostProcess
from bpu_qat_nn.detection import DetectionPostProcessV1 as DetectionPostProcessV1
from bpu_qat_nn.detection import PointPillarsScatter as PointPillarsScatter
from bpu_qat_nn.detection import RcnnPostProcess as RcnnPostProcess

from . import functional as functional
from . import qat as qat
from . import quantized as quantized
