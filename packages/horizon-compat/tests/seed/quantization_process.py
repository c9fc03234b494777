"""The guide's "Quantization Process": fuse, prepare, convert; `model`, `custom_qconfig` and the batch are ours."""
# mypy: ignore-errors

import torch
from torch import nn

import horizon_plugin_pytorch as horizon

custom_qconfig = horizon.qconfig.default_calib_out_8bit_fake_quant_qconfig
model = nn.Sequential()
model.add_module("quant", horizon.quantization.QuantStub())
model.add_module("conv", nn.Conv2d(3, 8, 3))
model.add_module("bn", nn.BatchNorm2d(8))
model.add_module("relu", nn.ReLU())
model.add_module("head", nn.Conv2d(8, 4, 1))
model.add_module("dequant", torch.quantization.DeQuantStub())
model.eval()

fused_model = horizon.quantization.fuse_fx(model)

# Set march to BERNOULLI2 for RDK X3, and to BAYES for RDK Ultra.
horizon.march.set_march(horizon.march.March.BAYES)
qat_model = horizon.quantization.prepare_qat_fx(
    model,
    {
        "": horizon.qconfig.default_calib_8bit_fake_quant_qconfig,
        "module_name": {
            "head": custom_qconfig,
        },
    },
)

horizon.quantization.set_fake_quantize(qat_model, horizon.quantization.FakeQuantState.CALIBRATION)
batch = torch.randn(2, 3, 16, 16)
qat_model(batch)

quantized_model = horizon.quantization.convert_fx(qat_model)
