"""Comparing, choosing and sampling: integers against exact arithmetic of the same inputs, gradients, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import MultiScaleRoIAlign, RoIAlign
from bpu_kernels.dtypes import qint16
from bpu_kernels.march import March
from bpu_qat_nn import InputError, PrepareError, QTensor, QuantStub, convert_fx, prepare_qat_fx
from bpu_qat_nn.ops.extremum import QuantizedExtremum
from bpu_qat_nn.testing import CASES, assert_exact, calibrate, prepared, real_inputs, validate
from bpu_qat_nn.testing.case import Between, BetweenTwo, Calls
from bpu_qat_nn.testing.stages import QCONFIGS
from bpu_qconfig import FakeQuantState, default_qat_8bit_fake_quant_qconfig, march_scope, set_fake_quantize

RELATIONS = ("eq", "ge", "gt", "le", "lt", "ne")


def converted(body: nn.Module, *inputs: Tensor, bits: int = 8) -> tuple[Any, Any]:
    """Return the model in VALIDATION state and converted, calibrated on these inputs."""
    made = (Between if len(inputs) == 1 else BetweenTwo)(body).eval()
    model = prepared(made, March.BAYES, bits).eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        model(*inputs)
    validate(model)
    return model, assert_exact(model, inputs)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("relation", RELATIONS)
def test_comparison_with_a_number_is_that_of_the_quantized_values(relation: str, bits: int) -> None:
    """All steps of int8, and as many of int16; numbers on the grid and beside it, within the range and beyond."""
    x = torch.linspace(-1, 1, 255).reshape(1, 1, 15, 17)
    for number in (0.0, 0.25, 1.0, -1.0, 3.0, -3.0, 0.1):
        body = Calls(lambda v, number=number: getattr(torch, relation)(v, number).float())
        _, model = converted(body, x, bits=bits)
        seen = model.quant(x).dequantize().double()
        assert torch.equal(model(x).bool(), getattr(torch, relation)(seen, number))


@pytest.mark.parametrize("relation", RELATIONS)
def test_comparison_of_tensors_of_one_scale_is_that_of_their_integers(relation: str) -> None:
    x = torch.arange(-127, 128).float().reshape(1, 1, 15, 17) / 127
    y = x.flip(3)
    _, model = converted(Calls(lambda a, b: getattr(torch, relation)(a, b).float()), x, y)
    a, b = model.quant(x), model.quant2(y)
    assert torch.equal(a.scale, b.scale)
    assert torch.equal(model(x, y).bool(), getattr(torch, relation)(a.int_repr(), b.int_repr()))


@pytest.mark.parametrize("bits", [8, 16])
def test_maximum_of_all_pairs_at_the_ends_does_not_overflow(bits: int) -> None:
    ends = torch.tensor([-1.0, -0.5, 0.0, 0.25, 1.0])
    x, y = (each.reshape(1, 1, 5, 5) for each in torch.meshgrid(ends, ends, indexing="ij"))
    for function in (torch.maximum, torch.minimum):
        _, model = converted(Calls(function), x, y, bits=bits)
        step = float(model(x, y).abs().max()) / (127 if bits == 8 else 32767)
        assert float((model(x, y) - function(x, y)).abs().max()) <= 1.01 * step


def test_where_gives_the_gradient_to_what_was_chosen() -> None:
    x, y = (t.tanh().requires_grad_() for t in real_inputs(((1, 2, 4, 4), (1, 2, 4, 4)), 0))
    model = prepared(BetweenTwo(Calls(lambda a, b: torch.where(a > b, a, b))).eval(), March.BAYES)
    calibrate(model, ((1, 2, 4, 4), (1, 2, 4, 4)))
    model(x, y).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert torch.equal(x.grad + y.grad, torch.ones_like(x))
    assert set(x.grad.flatten().tolist()) == {0.0, 1.0}


def test_what_is_masked_out_before_a_softmax_gets_nothing() -> None:
    x = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(9, 9).triu(1).bool()
    for value in (float("-inf"), -1e9, torch.finfo(torch.float32).min):
        body = nn.Sequential(Calls(lambda v, value=value: v.masked_fill(mask, value)), nn.Softmax(-1))
        _, model = converted(body, x)
        y = model(x)
        assert not y[..., mask].any()
        assert float((y - F.softmax(x.masked_fill(mask, value), -1)).abs().max()) < 0.01


def test_boolean_mask_as_an_input_goes_through_a_stub() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.mask, self.body = QuantStub(), QuantStub(), Calls(lambda x, m: x.masked_fill(m, 0.0))

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            y: Tensor = self.body(self.quant(x), self.mask(mask))
            return y

    x, mask = torch.randn(1, 2, 3, 4), torch.rand(1, 2, 3, 4) > 0.5
    model = prepared(Masked().eval(), March.BAYES).eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    model(x, mask)
    validate(model)
    y = assert_exact(model, (x, mask))(x, mask)
    assert isinstance(y, QTensor)
    assert not y.int_repr()[mask].any()
    assert y.int_repr()[~mask].any()


def test_real_mask_without_a_stub_is_refused_with_the_way_out() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant = QuantStub()

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return self.quant(x).masked_fill(mask, 0.0)  # type: ignore[no-any-return]

    with pytest.raises(PrepareError, match=r"mask is a real tensor[\s\S]*QuantStub of its own"):
        prepared(Masked().eval(), March.BAYES)


def test_indices_are_those_of_the_quantized_values_first_of_equal_ones_first() -> None:
    x = torch.tensor([[[0.5, 1.0, 1.0, -1.0, 0.5]]]).repeat(1, 3, 1)
    _, model = converted(Calls(lambda v: v.topk(4, 2).indices.float()), x)
    assert model(x)[0, 0].tolist() == [1, 2, 0, 4]
    _, model = converted(Calls(lambda v: v.argmin(2).float()), x)
    assert model(x)[0].tolist() == [3, 3, 3]


@pytest.mark.parametrize(("length", "dtype"), [(128, torch.int8), (129, torch.int16)])
def test_argmax_is_as_narrow_as_the_elements_where_it_fits(length: int, dtype: torch.dtype) -> None:
    x = torch.linspace(-1, 1, length).reshape(1, length, 1, 1).repeat(1, 1, 2, 2)
    body = Calls(lambda v: v.argmax(1, keepdim=True))
    model = prepared(nn.Sequential(QuantStub(), body), March.BAYES).eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    model(x)
    validate(model)
    places = convert_fx(model)(x)
    assert places.int_repr().dtype is dtype
    assert places.int_repr().unique().tolist() == [length - 1]


def test_argmax_of_many_channels_is_refused_where_nothing_is_wider_than_int8() -> None:
    model = prepared(Between(Calls(lambda v: v.argmax(1).float())), March.BERNOULLI2).eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    with pytest.raises(InputError, match="a place among 128 elements at most, got 129"):
        model(torch.randn(1, 129, 2, 2))


def test_argmax_needs_no_dequantization() -> None:
    class Labels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant = QuantStub()

        def forward(self, x: Tensor) -> Tensor:
            return self.quant(x).argmax(1)  # type: ignore[no-any-return]

    x = torch.randn(2, 5, 3, 4)
    model = prepared(Labels().eval(), March.BAYES)
    calibrate(model, (x.shape,))
    labels = assert_exact(model, (x,))(x)
    assert isinstance(labels, QTensor)
    assert labels.int_repr().dtype is torch.int8
    assert (labels.int_repr() == x.argmax(1)).float().mean() > 0.9


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("aligned", [False, True])
def test_grid_sample_is_close_to_torch(mode: str, aligned: bool) -> None:
    torch.manual_seed(0)
    x, grid = torch.randn(2, 3, 9, 14), torch.rand(2, 5, 6, 2) * 2.2 - 1.1
    body = Calls(lambda a, g: F.grid_sample(a, g, mode, "border", aligned))
    model = BetweenTwo(body).eval()
    observed = prepared(model, March.BAYES, module_name=[("quant2", QCONFIGS[16])]).eval()
    set_fake_quantize(observed, FakeQuantState.CALIBRATION)
    observed(x, grid)
    validate(observed)
    got = assert_exact(observed, (x, grid))(x, grid)
    expected = F.grid_sample(x, grid, mode, "border", aligned)
    far = (got - expected).abs() > 3 * float(x.abs().max()) / 127
    assert float(far.float().mean()) < (0.03 if mode == "nearest" else 1e-9)  # the nearest of two at equal distance


REFUSED: dict[str, tuple[Callable[..., Tensor], str]] = {
    "reflection": (lambda x, y: F.grid_sample(x, y, padding_mode="reflection", align_corners=False), "padding_mode"),
    "bicubic grid": (lambda x, y: F.grid_sample(x, y, "bicubic", align_corners=False), "mode 'bicubic'"),
    "fill with infinity": (lambda x, y: x.masked_fill(y > 0, float("inf")), "value inf"),
    "mask as index": (lambda x, y: x[y > 0], "picks elements by the values.*Write torch.where"),
    "places as index": (lambda x, y: x.index_select(1, y.argmax(1).flatten()), "picks elements.*torch.gather"),
    "type of a quantized tensor": (lambda x, y: x.to(y.dtype), "'dtype'.*none that torch's functions take.*Leave"),
    "dilated fold": (lambda x, y: F.fold(x.flatten(2), (4, 4), 2, dilation=2) * y, "dilation"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_integer_form_is_refused(name: str) -> None:
    function, reason = REFUSED[name]
    with pytest.raises(PrepareError, match=reason):
        prepared(BetweenTwo(Calls(function)).eval(), March.BAYES)


@pytest.mark.parametrize("name", ["topk_values", "gather_by_another", "grid_sample_bilinear_zeros", "roi_align"])
def test_bernoulli2_refuses_what_it_lacks(name: str) -> None:
    with pytest.raises(PrepareError, match="bernoulli2"):
        prepared(CASES[name].model(), March.BERNOULLI2)


class Pooler(nn.Module):
    """Boxes of two images from two levels, strides found from the images."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.boxes = QuantStub(), QuantStub(), QuantStub(scale=1 / 64)
        self.pool = MultiScaleRoIAlign(["0", "1"], (3, 2), 2, canonical_scale=24, canonical_level=2)

    def forward(self, fine: Tensor, coarse: Tensor, first: Tensor, second: Tensor) -> Tensor:
        maps = {"0": self.fine(fine), "1": self.coarse(coarse), "unused": self.fine(fine)}
        y: Tensor = self.pool(maps, [self.boxes(first), self.boxes(second)], [(64, 48), (64, 48)])
        return y


def test_pyramid_of_several_images_is_close_to_the_float_module() -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(2, 4, 16, 12), torch.randn(2, 4, 8, 6), *(_boxes(6) for _ in range(2)))
    model = Pooler().eval()
    expected = model(*inputs)
    with march_scope(March.BAYES):
        qconfigs = {"": default_qat_8bit_fake_quant_qconfig, "module_name": [("boxes", QCONFIGS[16])]}
        observed = prepare_qat_fx(model, qconfigs).eval()
    set_fake_quantize(observed, FakeQuantState.CALIBRATION)
    torch.testing.assert_close(observed(*inputs).dequantize(), expected)
    validate(observed)
    assert_exact(observed, inputs)
    got = convert_fx(observed)(*inputs)
    assert isinstance(got, QTensor)
    assert got.shape == (12, 4, 3, 2)
    assert float((got.dequantize() - expected).abs().max()) < 3.1 / 127 * 3


def test_numbered_boxes_of_a_batch_are_refused_when_it_calibrates() -> None:
    torch.manual_seed(0)
    model = prepared(BetweenTwo(RoIAlign(2, 1.0, 2)).eval(), March.BAYES).eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    boxes = torch.cat([torch.zeros(5, 1), _boxes(5)], 1)
    model(torch.randn(1, 4, 12, 12), boxes)
    with pytest.raises(InputError, match=r"this batch has 2\. Give a list with a tensor of four coordinates"):
        model(torch.randn(2, 4, 12, 12), boxes)


def _boxes(count: int) -> Tensor:
    corner = torch.rand(count, 2) * 20
    return torch.cat([corner, corner + torch.rand(count, 2) * 40], 1)


class MaskedAttention(nn.Module):
    """Attention with a mask that is an input."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.mask = QuantStub(), QuantStub()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.quant(x)
        return F.scaled_dot_product_attention(x, x, x, attn_mask=self.mask(mask))


@pytest.mark.parametrize("kind", ["boolean", "real"])
def test_mask_that_is_an_input_means_what_it_means_to_torch(kind: str) -> None:
    torch.manual_seed(0)
    x, allowed = torch.randn(2, 3, 9, 8), torch.ones(2, 1, 9, 9).tril().bool()
    mask = allowed if kind == "boolean" else torch.zeros(2, 1, 9, 9).masked_fill(~allowed, -32.0)
    with march_scope(March.BAYES):
        model = prepare_qat_fx(
            MaskedAttention().eval(), {"": default_qat_8bit_fake_quant_qconfig}, example_inputs=(x, mask)
        ).eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    model(x, mask)
    validate(model)
    got = assert_exact(model, (x, mask))(x, mask)
    assert isinstance(got, QTensor)
    expected = F.scaled_dot_product_attention(x, x, x, attn_mask=mask)
    assert float((got.dequantize() - expected).abs().mean()) < 0.05


@pytest.mark.parametrize("function", [torch.amax, torch.amin])
def test_largest_of_16_bits_is_exact_for_every_largest(function: Callable[..., Tensor]) -> None:
    """Every int16 is the largest, or smallest, of a row once, beside its neighbour, the ends and a random one."""
    every = torch.arange(-(2**15), 2**15).reshape(1, 64, 1024, 1)
    further = torch.randint(0, 2**16, every.shape, generator=torch.Generator().manual_seed(0))
    sign = 1 if function is torch.amax else -1
    ends = torch.full_like(every, -sign * 2**15).clamp(max=2**15 - 1)
    rows = torch.cat((ends, every - sign * further, every - sign, every), 3).clamp(-(2**15), 2**15 - 1)
    _, model = converted(Calls(lambda x: function(x, 3)), torch.randn(1, 2, 3, 4), bits=16)
    (operator,) = (each for each in model.modules() if isinstance(each, QuantizedExtremum))
    found = operator(QTensor(rows.to(torch.int16), model.quant.scale, None, qint16))
    assert torch.equal(found.int_repr().long(), function(rows, 3))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("length", [1, 9, 128])
def test_softmax_is_within_a_step_of_the_real_one(length: int, bits: int) -> None:
    x = torch.randn(2, 3, 5, length, generator=torch.Generator().manual_seed(0)) * 3
    model, _ = converted(nn.Softmax(-1), x, bits=bits)
    seen = model.quant(x).dequantize().double()
    allowed = 1 / 127 if bits == 8 else 30 / 32767
    assert float((model(x) - seen.softmax(-1)).abs().max()) < allowed
