"""The guide's "Supported Operator Combinations", the loops that register every fusion pattern."""
# mypy: ignore-errors

import operator

import torch
from torch import nn

from horizon_plugin_pytorch import nn as horizon_nn
from horizon_plugin_pytorch.quantization import (
    ConvBNAddedReLUFusion,
    ConvBNAddReLUFusion,
    MatchAllNode,
    register_fusion_pattern,
)


def register_fusion_patterns():
    convs = (
        nn.Conv2d,
        nn.ConvTranspose2d,
        nn.Conv3d,
        nn.Linear,
    )
    bns = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    adds = (
        nn.quantized.FloatFunctional.add,
        horizon_nn.quantized.FloatFunctional.add,
        torch.add,
        operator.add,  # The '+' operator used in code
    )
    relus = (nn.ReLU, nn.ReLU6, nn.functional.relu, nn.functional.relu6)

    for conv in convs:
        for bn in bns:
            for add in adds:
                for relu in relus:
                    # Conv BN
                    register_fusion_pattern((bn, conv))(ConvBNAddReLUFusion)

                    # Conv ReLU
                    register_fusion_pattern((relu, conv))(ConvBNAddReLUFusion)

                    # Conv Add
                    register_fusion_pattern((add, conv, MatchAllNode))(
                        ConvBNAddReLUFusion
                    )  # Conv output as first input to add
                    register_fusion_pattern((add, MatchAllNode, conv))(
                        ConvBNAddedReLUFusion
                    )  # Conv output as second input to add

                    # Conv BN ReLU
                    register_fusion_pattern((relu, (bn, conv)))(ConvBNAddReLUFusion)

                    # Conv BN Add
                    register_fusion_pattern((add, (bn, conv), MatchAllNode))(ConvBNAddReLUFusion)
                    register_fusion_pattern((add, MatchAllNode, (bn, conv)))(ConvBNAddedReLUFusion)

                    # Conv Add ReLU
                    register_fusion_pattern((relu, (add, conv, MatchAllNode)))(ConvBNAddReLUFusion)
                    register_fusion_pattern((relu, (add, MatchAllNode, conv)))(ConvBNAddedReLUFusion)

                    # Conv BN Add ReLU
                    register_fusion_pattern((relu, (add, (bn, conv), MatchAllNode)))(ConvBNAddReLUFusion)
                    register_fusion_pattern((relu, (add, MatchAllNode, (bn, conv))))(ConvBNAddedReLUFusion)
