"""The guide's example of fusing BatchNorm, addition and ReLU into a convolution."""
# mypy: ignore-errors
# ruff: noqa: F401, UP008, RET504

import torch
from torch import nn
from torch.quantization import DeQuantStub

from horizon_plugin_pytorch.quantization import QuantStub, fuse_fx


class ModelForFusion(nn.Module):
    def __init__(self):
        super(ModelForFusion, self).__init__()
        self.quantx = QuantStub()
        self.quanty = QuantStub()
        self.conv = nn.Conv2d(3, 3, 3)
        self.bn = nn.BatchNorm2d(3)
        self.relu = nn.ReLU()
        self.dequant = DeQuantStub()

    def forward(self, x, y):
        x = self.quantx(x)
        y = self.quanty(y)
        x = self.conv(x)
        x = self.bn(x)
        x = x + y
        x = self.relu(x)
        x = self.dequant(x)

        return x


float_model = ModelForFusion()
fused_model = fuse_fx(float_model)

print(fused_model)
