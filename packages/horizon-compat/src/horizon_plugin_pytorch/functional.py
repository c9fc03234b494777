"""Colour conversion, in float before a model and on integers in a converted one, and functions on predictions."""

from __future__ import annotations

from torch import abs as abs
from torch import argmax as argmax

from bpu_qat_nn import bgr2centered_gray as bgr2centered_gray
from bpu_qat_nn import bgr2centered_yuv as bgr2centered_yuv
from bpu_qat_nn import bgr2gray as bgr2gray
from bpu_qat_nn import bgr2rgb as bgr2rgb
from bpu_qat_nn import bgr2yuv as bgr2yuv
from bpu_qat_nn import centered_yuv2bgr as centered_yuv2bgr
from bpu_qat_nn import centered_yuv2rgb as centered_yuv2rgb
from bpu_qat_nn import rgb2bgr as rgb2bgr
from bpu_qat_nn import rgb2centered_gray as rgb2centered_gray
from bpu_qat_nn import rgb2centered_yuv as rgb2centered_yuv
from bpu_qat_nn import rgb2gray as rgb2gray
from bpu_qat_nn import rgb2yuv as rgb2yuv
from bpu_qat_nn.detection import filter as filter
