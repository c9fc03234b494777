"""Fusion patterns and graph modules."""

from __future__ import annotations

from bpu_fx_fusion import ConvBNAddedReLUFusion as ConvBNAddedReLUFusion
from bpu_fx_fusion import ConvBNAddReLUFusion as ConvBNAddReLUFusion
from bpu_fx_fusion import MatchAllNode as MatchAllNode
from bpu_fx_fusion import register_fusion_pattern as register_fusion_pattern

from . import graph_module as graph_module
