"""The guide's "Customizing qconfig"."""
# mypy: ignore-errors

from horizon_plugin_pytorch.quantization import (
    FakeQuantize,
    MovingAveragePerChannelMinMaxObserver,
    MovingAveragePerTensorMinMaxObserver,
    QConfig,
)

activation_8bit_fake_quant = FakeQuantize.with_args(
    observer=MovingAveragePerTensorMinMaxObserver,
    dtype="qint8",
    ch_axis=0,
    averaging_constant=0,  # Custom parameter for observer
)

weight_8bit_fake_quant = FakeQuantize.with_args(
    observer=MovingAveragePerChannelMinMaxObserver,
    dtype="qint8",
    ch_axis=0,
    averaging_constant=1,  # Custom parameter for observer
)

qat_8bit_qconfig = QConfig(activation=activation_8bit_fake_quant, weight=weight_8bit_fake_quant)
