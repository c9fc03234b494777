"""Forms in which the vendor's operator table documents operators: exact in all forms, or refused with a reason.

Each is written as a user writes it, and checked on the march that the table names. What the cases of the operators
(`bpu_qat_nn.testing.CASES`) hold is left to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_qat_nn import ObservedGraphModule, PrepareError
from bpu_qconfig import march_scope
from horizon_plugin_pytorch import functional as horizon_functional
from horizon_plugin_pytorch import nn as horizon_nn
from horizon_plugin_pytorch import qconfig
from horizon_plugin_pytorch.nn.quantized import FloatFunctional
from horizon_plugin_pytorch.quantization import (
    DeQuantStub,
    FakeQuantState,
    QuantStub,
    prepare_qat_fx,
    set_fake_quantize,
)

MAP = (1, 4, 8, 8)


@dataclass(frozen=True)
class Form:
    """A call: of a function, of a module, or of a method of FloatFunctional that the forward names."""

    call: Callable[..., Any]
    module: Callable[[], nn.Module] = nn.Identity
    shapes: tuple[tuple[int, ...], ...] = (MAP,)
    positive: bool = False
    """Whether the function is defined for positive inputs only, or has a pole at 0."""


class Model(nn.Module):
    """The call between stubs."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form, self.module = form, form.module()
        self.quant, self.other, self.dequant = QuantStub(), QuantStub(), DeQuantStub()

    def run(self, *inputs: Tensor) -> Tensor:
        given = inputs if isinstance(self.module, nn.Identity) else (self.module, *inputs)
        y: Tensor = self.dequant(self.form.call(*given))
        return y


class OfOne(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.quant(x))


class OfTwo(Model):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.run(self.quant(x), self.other(y))


def form(call: Callable[..., Any], *shapes: tuple[int, ...], **options: Any) -> Form:
    return Form(call, shapes=shapes or (MAP,), **options)


def of(module: Callable[[], nn.Module], *shapes: tuple[int, ...]) -> Form:
    """Return the form of a module that is called on its inputs."""
    return Form(lambda module, *inputs: module(*inputs), module, shapes or (MAP,))


def functional(call: Callable[..., Any], *shapes: tuple[int, ...]) -> Form:
    return Form(call, FloatFunctional, shapes or (MAP,))


BOTH = {
    "torch.add": form(torch.add, MAP, MAP),
    "scalar_in_front": form(lambda x: 1.5 + x),
    "number_as_a_tensor": form(lambda x: torch.tensor(1.5) - x * torch.tensor(2.0)),
    "torch.sub": form(torch.sub, MAP, MAP),
    "FF.sub": functional(lambda f, x, y: f.sub(x, y), MAP, MAP),
    "torch.mul": form(torch.mul, MAP, MAP),
    "mul_by_zero": form(lambda x: x * 0),
    "cat_by_default": functional(lambda f, x, y: f.cat([x, y], 1), MAP, MAP),
    "mean_of_height_and_width": form(lambda x: torch.mean(x, dim=[2, 3], keepdim=True)),
    "mean_of_channels": form(lambda x: torch.mean(x, 1, keepdim=True)),
    "sum_of_channels": form(lambda x: x.sum(1)),
    "max_values": form(lambda x: torch.max(x, dim=1, keepdim=True).values),
    "argmax": form(lambda x: torch.argmax(x, 1, keepdim=True)),
    "horizon_argmax": form(lambda x: horizon_functional.argmax(x, dim=1, keepdim=True)),
    "max_of_two": form(torch.max, MAP, MAP),
    "maximum_with_a_number": form(lambda x: torch.maximum(x, torch.tensor(0.5))),
    "minimum_with_a_number": form(lambda x: torch.min(torch.tensor(0.5), x)),
    "FF.minimum": functional(lambda f, x, y: f.minimum(x, y), MAP, MAP),
    "split_sections": form(lambda x: torch.split(x, [1, 3], dim=1)[1]),
    "chunk": form(lambda x: torch.chunk(x, 2, 1)[1]),
    "getitem_with_steps": form(lambda x: x[..., ::2, 1::2]),
    "clamp_by_keyword": form(lambda x: torch.clamp(x, max=0.5)),
    "clip": form(lambda x: x.clip(-0.5)),
    "clamp_min": form(lambda x: torch.clamp_min(x, 0.1)),
    "clamp_by_tensors": form(lambda x, low: torch.clamp(x, low, torch.tensor(0.8)), MAP, MAP),
    "clamp_by_a_constant": form(lambda x: x.clamp(min=torch.full(MAP, -0.5))),
    "horizon_abs": form(horizon_functional.abs),
    "ceil": form(torch.ceil),
    "exp": form(lambda x: torch.exp(x)),
    "horizon.nn.Pow": of(lambda: horizon_nn.Pow(2)),
    "F.interpolate_size": form(lambda x: F.interpolate(x, size=(12, 20), mode="bilinear", align_corners=False)),
    "interpolate_factors": form(
        lambda x: F.interpolate(x, scale_factor=[2.0, 2.0], mode="nearest", recompute_scale_factor=True)
    ),
    "horizon.nn.Interpolate": of(
        lambda: horizon_nn.Interpolate(scale_factor=2, mode="bilinear", recompute_scale_factor=True)
    ),
    "UpsamplingNearest2d": of(lambda: nn.UpsamplingNearest2d(scale_factor=2)),
    "ConstantPad2d": of(lambda: nn.ConstantPad2d(1, 0.3)),
    "F.pad": form(lambda x: F.pad(x, (1, 2, 1, 0), "constant", 0.5)),
    "F.relu6_behind_conv": Form(lambda conv, x: F.relu6(conv(x)), lambda: nn.Conv2d(4, 4, 3)),
    "relu_in_place": Form(lambda conv, x: torch.relu_(conv(x)), lambda: nn.Conv2d(4, 4, 3)),
    "conv_as_second_operand": Form(lambda conv, x, y: F.relu(y + conv(x)), lambda: nn.Conv2d(4, 4, 1), (MAP, MAP)),
    "gelu_by_tanh": form(lambda x: F.gelu(x, approximate="tanh")),
    "F.prelu": Form(lambda prelu, x: F.prelu(x, prelu.weight), lambda: nn.PReLU(4)),
    "F.celu": form(lambda x: F.celu(x, 0.5)),
    "F.mish": form(lambda x: F.mish(x)),
    "F.logsigmoid": form(lambda x: F.logsigmoid(x)),
    "F.softsign": form(lambda x: F.softsign(x)),
    "max_pool_by_function": form(lambda x: F.max_pool2d(x, 3, stride=2, padding=1)),
    "BatchNorm2d_alone": of(lambda: nn.BatchNorm2d(4)),
    "deconv_bn_relu": of(lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.ReLU())),
    "horizon.nn.ChannelShuffle": of(lambda: horizon_nn.ChannelShuffle(shuffle_index=[3, 1, 0, 2])),
    "F.channel_shuffle": form(lambda x: F.channel_shuffle(x, 2)),
    "Dropout2d": of(nn.Dropout2d),
}
"""What both marches document, or is made of what they do."""

BAYES = {
    "add_over_rows": form(lambda x, y: x + y, MAP, (1, 4, 1, 8)),
    "mul_over_channels": form(lambda x, y: y * x, MAP, (1, 1, 8, 8)),
    "matmul_transposed": form(lambda x, y: x @ y.transpose(-1, -2), (1, 2, 6, 5), (1, 2, 7, 5)),
    "mean_of_all_but_the_batch": form(lambda x: torch.mean(x, (1, 2, 3), keepdim=True)),
    "horizon.nn.Div": Form(lambda div, x, y: div(x, y), horizon_nn.Div, (MAP, MAP), positive=True),
    "number_by_tensor": form(lambda x: 3 / x, positive=True),
    "horizon.nn.HardLog": Form(lambda log, x: log(x), horizon_nn.HardLog, positive=True),
    "greater_equal": form(lambda x, y: torch.where(torch.greater_equal(x, y), x, y), MAP, MAP),
    "where_with_a_number_as_a_tensor": form(lambda x: torch.where(x > 0, x, torch.tensor(0.25))),
    "less_from_the_left": form(lambda x, y: torch.where(x > 0.25, x, y), MAP, MAP),
    "masked_fill": form(lambda x: torch.masked_fill(x, x < 0, -1.0)),
    "gather_by_argmax": form(lambda x, y: torch.gather(x, 1, torch.argmax(y, 1, keepdim=True)), MAP, MAP),
    "topk_smallest": form(lambda x: torch.topk(x, 2, 1, False)[0]),
    "topk_unsorted": form(lambda x: x.topk(2, dim=1, sorted=False).values),
    "tile": form(lambda x: torch.tile(x, (1, 1, 2, 2))),
    "expand": form(lambda x: x.expand(1, 4, 8, 8), (1, 4, 1, 8)),
    "view_by_size": form(lambda x: x.view(x.size(0), -1)),
    "ten_axes": form(lambda x: x.reshape(1, 2, 2, 1, 2, 2, 2, 1, 2, 4)),
    "grid_sample_border": form(
        lambda x, grid: F.grid_sample(x, grid, "nearest", "border", align_corners=True), MAP, (1, 8, 8, 2)
    ),
    "horizon.nn.GridSample": Form(
        lambda sample, x, grid: sample(x, grid),
        lambda: horizon_nn.GridSample(mode="bilinear", padding_mode="zeros", align_corners=False),
        (MAP, (1, 8, 8, 2)),
    ),
    "ReplicationPad2d": of(lambda: nn.ReplicationPad2d((1, 0, 2, 1))),
    "F.glu": form(lambda x: F.glu(x, 1)),
    "F.softmax": form(lambda x: F.softmax(x, dim=1)),
    "horizon.nn.LayerNorm": of(lambda: horizon_nn.LayerNorm(8, rsqrt_kwargs={"auto_divide_strategy": "curvature"})),
    "AdaptiveAvgPool2d_of_one_side": of(lambda: nn.AdaptiveAvgPool2d((2, None))),
    "Conv3d_kernel_9": of(lambda: nn.Conv3d(2, 3, (9, 1, 1)), (1, 2, 9, 4, 4)),
    "MultiheadAttention_of_other_widths": Form(
        lambda attend, x, y: attend(x, y, y)[0],
        lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=4),
        ((6, 1, 8), (6, 1, 4)),
    ),
    "Correlation": Form(
        lambda correlate, x, y: correlate(x, y),
        lambda: horizon_nn.Correlation(max_displacement=2, pad_size=2),
        (MAP, MAP),
    ),
}
"""What the table documents for Bayes only."""

EXACT = [pytest.param(name, march, id=f"{name}-{march}") for march in ("bayes", "bernoulli2") for name in BOTH]
EXACT += [pytest.param(name, "bayes", id=f"{name}-bayes") for name in BAYES]


def inputs_of(form: Form, seed: int) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(shape, generator=draw) for shape in form.shapes]
    return tuple(x.abs() + 0.1 if form.positive else x for x in drawn)


def prepared(form: Form) -> ObservedGraphModule:
    kind = (OfOne, OfTwo)[len(form.shapes) - 1]
    return prepare_qat_fx(kind(form), {"": qconfig.default_qat_8bit_fake_quant_qconfig})


@pytest.mark.parametrize(("name", "march"), EXACT)
def test_documented_form_is_exact(name: str, march: str, assert_one_arithmetic: Callable[..., Any]) -> None:
    form = {**BOTH, **BAYES}[name]
    with march_scope(march):
        model = prepared(form)
        model.eval()
        set_fake_quantize(model, FakeQuantState.CALIBRATION)
        model(*inputs_of(form, 1))
        assert_one_arithmetic(model, *inputs_of(form, 2))


REFUSED = {
    "add_alpha": (form(lambda x, y: torch.add(x, y, alpha=2), MAP, MAP), "bayes", "alpha=2"),
    "sum_of_all": (form(lambda x: torch.sum(x)), "bayes", "no dim is given"),
    "argmax_of_all": (form(lambda x: x.argmax()), "bayes", "no dim is given"),
    "sort_of_unknown_length": (form(lambda x: torch.sort(x, 1)[0]), "bayes", "without example inputs"),
    "division_by_zero": (form(lambda x: x / 0), "bayes", "it divides by zero"),
    "FF.max": (functional(lambda f, x, y: f.max(x, y), MAP, MAP), "bayes", "FloatFunctional.max, which has no"),
    "matmul": (form(torch.matmul, MAP, MAP), "bernoulli2", "matrix products of two activations"),
    "gather": (
        form(lambda x, y: torch.gather(x, 1, torch.argmax(y, 1, keepdim=True)), MAP, MAP),
        "bernoulli2",
        "elements by index",
    ),
    "grid_sample": (form(lambda x, grid: F.grid_sample(x, grid), MAP, (1, 8, 8, 2)), "bernoulli2", "by a grid"),
    "grid_sample_reflection": (
        form(lambda x, grid: F.grid_sample(x, grid, padding_mode="reflection"), MAP, (1, 8, 8, 2)),
        "bayes",
        "padding_mode 'reflection' (allowed: 'zeros', 'border')",
    ),
    "mean_of_columns": (form(lambda x: x.mean(-1)), "bernoulli2", "sum or mean over -1 (allowed: height and width"),
    "softmax": (of(lambda: nn.Softmax(1)), "bernoulli2", "computed in 16 bits"),
    "interpolate_area": (form(lambda x: F.interpolate(x, scale_factor=0.5, mode="area")), "bayes", "mode 'area'"),
    "conv_stride_3": (of(lambda: nn.Conv2d(4, 4, 3, stride=3)), "bernoulli2", "stride 3 (allowed: 1..2"),
    "conv_kernel_8": (of(lambda: nn.Conv2d(4, 4, 8, padding=3)), "bernoulli2", "kernel 8 (allowed: 1..7"),
    "conv3d_dilated": (of(lambda: nn.Conv3d(2, 2, 3, dilation=2), (1, 2, 6, 6, 6)), "bayes", "both must be 1"),
    "deconv_kernel_16": (of(lambda: nn.ConvTranspose2d(4, 4, 16, 2)), "bayes", "kernel 16 (allowed: 2..14"),
    "attention_with_bias_kv": (
        Form(lambda attend, x: attend(x, x, x)[0], lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True), ((6, 1, 8),)),
        "bayes",
        "add_bias_kv or add_zero_attn",
    ),
}
"""Name -> form, march, and what the refusal says."""


@pytest.mark.parametrize("name", REFUSED)
def test_form_beyond_the_table_is_refused_with_its_reason(name: str) -> None:
    form, march, words = REFUSED[name]
    with march_scope(march), pytest.raises(PrepareError) as caught:
        prepared(form)

    assert words in str(caught.value)
