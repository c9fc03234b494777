"""The documented module paths of horizon_plugin_pytorch, served by the bpu packages: names only."""

from __future__ import annotations

from . import dtype as dtype
from . import functional as functional
from . import fx as fx
from . import jit as jit
from . import march as march
from . import nn as nn
from . import qat_mode as qat_mode
from . import qtensor as qtensor
from . import quantization as quantization
from . import utils as utils
from .errors import HorizonCompatError as HorizonCompatError
from .errors import NotAvailableError as NotAvailableError
from .errors import NotImportableError as NotImportableError
from .functional import bgr2centered_gray as bgr2centered_gray
from .functional import bgr2centered_yuv as bgr2centered_yuv
from .functional import bgr2gray as bgr2gray
from .functional import bgr2rgb as bgr2rgb
from .functional import bgr2yuv as bgr2yuv
from .functional import centered_yuv2bgr as centered_yuv2bgr
from .functional import centered_yuv2rgb as centered_yuv2rgb
from .functional import rgb2bgr as rgb2bgr
from .functional import rgb2centered_gray as rgb2centered_gray
from .functional import rgb2centered_yuv as rgb2centered_yuv
from .functional import rgb2gray as rgb2gray
from .functional import rgb2yuv as rgb2yuv
from .march import set_march as set_march
from .quantization import qconfig as qconfig

__all__ = [
    "HorizonCompatError",
    "NotAvailableError",
    "NotImportableError",
    "bgr2centered_gray",
    "bgr2centered_yuv",
    "bgr2gray",
    "bgr2rgb",
    "bgr2yuv",
    "centered_yuv2bgr",
    "centered_yuv2rgb",
    "dtype",
    "functional",
    "fx",
    "jit",
    "march",
    "nn",
    "qat_mode",
    "qconfig",
    "qtensor",
    "quantization",
    "rgb2bgr",
    "rgb2centered_gray",
    "rgb2centered_yuv",
    "rgb2gray",
    "rgb2yuv",
    "set_march",
    "utils",
]
