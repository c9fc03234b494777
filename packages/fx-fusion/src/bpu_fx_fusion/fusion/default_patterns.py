"""The patterns that are fused by default: conv [+ BatchNorm] [+ add] [+ ReLU], with at least two of them."""

from __future__ import annotations

import operator
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn

from ..modules.float_functional import FloatFunctional
from .batch_norm import BATCH_NORMS, CONVS
from .handlers import ConvBNAddedReLUFusion, ConvBNAddReLUFusion
from .pattern import MatchAllNode, Pattern
from .registry import register_fusion_pattern

ADDS = (FloatFunctional.add, torch.add, operator.add)
RELU_FORMS = (nn.ReLU, nn.ReLU6, F.relu, F.relu6)


def register_default_patterns() -> None:
    """Register the full product of layers, BatchNorms, additions and activations; doing so again is harmless."""
    for conv, bn, add, relu in product(CONVS, BATCH_NORMS, ADDS, RELU_FORMS):
        for chain in (conv, (bn, conv)):
            _register(relu, chain, ConvBNAddReLUFusion)
            _register(relu, (add, chain, MatchAllNode), ConvBNAddReLUFusion)
            _register(relu, (add, MatchAllNode, chain), ConvBNAddedReLUFusion)


def _register(relu: Pattern, chain: Pattern, handler: type[ConvBNAddReLUFusion]) -> None:
    """Register a chain that ends with an activation, and the same without it."""
    register_fusion_pattern((relu, chain))(handler)
    if isinstance(chain, tuple):
        register_fusion_pattern(chain)(handler)


register_default_patterns()
