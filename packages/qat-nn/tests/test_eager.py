"""Eager mode: the same modules and integers as the FX flow, without tracing; the two are not mixed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional as TorchFloatFunctional

from bpu_fx_fusion import ConvReLU2d, FloatFunctional, fuse_fx
from bpu_kernels.march import March
from bpu_qat_nn import (
    ArgumentError,
    ConvertError,
    DeQuantStub,
    InputError,
    PrepareError,
    QATMode,
    QATModule,
    QTensorError,
    QuantStub,
    convert,
    convert_fx,
    fuse_known_modules,
    fuse_modules,
    prepare_calibration,
    prepare_calibration_fx,
    prepare_qat,
    prepare_qat_fx,
    qat_mode_scope,
)
from bpu_qat_nn.testing import differing, real_inputs
from bpu_qconfig import (
    FakeQuantState,
    default_qat_8bit_fake_quant_qconfig,
    default_qat_8bit_weight_16bit_act_fake_quant_qconfig,
    default_qat_out_8bit_fake_quant_qconfig,
    march_scope,
    set_fake_quantize,
)

MAP = (2, 3, 8, 8)
GROUPS = [["stem", "bn", "relu"], ["body", "body_bn", "add", "body_relu"], ["head", "head_bn"]]


class Net(nn.Module):
    """A residual block with a branch by shape, as eager models may have."""

    def __init__(self, functional: type[nn.Module] = FloatFunctional) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.stem, self.bn, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        self.body, self.body_bn, self.body_relu = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6()
        self.add: Any = functional()
        self.scale: Any = functional()
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout(0.1)
        self.head, self.head_bn = nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.stem(self.quant(x))))
        x = self.body_relu(self.add.add(self.body_bn(self.body(x)), x))
        if x.shape[2] > 4:
            x = self.pool(x)
        x = self.scale.mul_scalar(self.drop(x), 0.5)
        y: Tensor = self.dequant(self.head_bn(self.head(x)))
        return y


def net(functional: type[nn.Module] = FloatFunctional) -> Any:
    torch.manual_seed(0)
    model = Net(functional)
    for bn in (model.bn, model.body_bn, model.head_bn):
        nn.init.uniform_(bn.weight, 0.5, 1.5)
        bn.running_mean.normal_()  # type: ignore[union-attr]
    return model.eval()


def with_qconfig(model: nn.Module) -> Any:
    model.qconfig = default_qat_8bit_fake_quant_qconfig  # type: ignore[assignment]
    return model


def trained(model: nn.Module) -> nn.Module:
    """Calibrate, take two steps, leave in VALIDATION state."""
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    model.eval()(*real_inputs((MAP,), 0))
    set_fake_quantize(model.train(), FakeQuantState.QAT)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for seed in (1, 2):
        torch.manual_seed(seed)  # of dropout
        optimizer.zero_grad()
        model(*real_inputs((MAP,), seed)).square().mean().backward()
        optimizer.step()
    set_fake_quantize(model.eval(), FakeQuantState.VALIDATION)
    return model


def test_fused_modules_stand_in_the_first_place_or_in_that_of_the_addition() -> None:
    model = net()
    fused: Any = fuse_modules(model, GROUPS)
    (x,) = real_inputs((MAP,), 0)

    assert type(fused.stem) is ConvReLU2d
    assert type(fused.add).__name__ == "ConvAddReLU62d"
    assert type(fused.head) is nn.Conv2d
    assert all(type(fused.get_submodule(name)) is nn.Identity for name in ("bn", "relu", "body", "body_bn", "head_bn"))
    torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-4)
    assert type(model.stem) is nn.Conv2d


def test_fusing_in_place_changes_the_model() -> None:
    model = net()
    assert fuse_modules(model, GROUPS[0], inplace=True) is model
    assert type(model.stem) is ConvReLU2d


def test_batch_norm_is_kept_under_with_bn() -> None:
    with qat_mode_scope(QATMode.WithBN):
        (fused, *_) = fuse_known_modules([nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()])

    assert [name for name, _ in fused.named_children()] == ["conv", "bn", "relu"]


@pytest.mark.parametrize(
    "chain",
    [
        [nn.Conv2d(3, 4, 1)],
        [nn.ReLU(), nn.Conv2d(3, 4, 1)],
        [nn.Conv2d(3, 4, 1), nn.Sigmoid()],
        [nn.Conv2d(3, 4, 1), nn.ReLU(), FloatFunctional()],
        [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(5)],
        [nn.Conv2d(3, 4, 1), nn.Identity()],
    ],
    ids=lambda chain: "-".join(type(module).__name__ for module in chain),
)
def test_chain_that_is_not_known_is_refused(chain: list[nn.Module]) -> None:
    with pytest.raises(ArgumentError, match="cannot fuse"):
        fuse_known_modules(chain)


def test_unknown_path_is_refused() -> None:
    with pytest.raises(ArgumentError, match="names 'nowhere'"):
        fuse_modules(net(), ["stem", "nowhere"])


def test_additional_mapping_fuses_other_chains() -> None:
    def keep_the_first(is_qat: bool, first: nn.Module, second: nn.Module) -> nn.Module:
        assert not is_qat
        return first

    config = {"additional_fuser_method_mapping": {(nn.MaxPool2d, nn.Dropout): keep_the_first}}
    fused: Any = fuse_modules(net(), ["pool", "drop"], fuse_custom_config_dict=config)

    assert [type(fused.pool), type(fused.drop)] == [nn.MaxPool2d, nn.Identity]


@pytest.mark.parametrize("march", list(March))
@pytest.mark.parametrize("functional", [FloatFunctional, TorchFloatFunctional], ids=["ours", "torch's"])
def test_converted_model_gives_the_integers_of_validation(march: March, functional: type[nn.Module]) -> None:
    with march_scope(march):
        model = trained(prepare_qat(with_qconfig(fuse_modules(net(functional), GROUPS))))
        converted = convert(model)
    for shape in (MAP, (1, 3, 4, 4)):  # both branches
        (x,) = real_inputs((shape,), 5)
        assert differing(converted(x), model(x)) == 0


def test_eager_and_fx_flow_give_the_same_integers() -> None:
    """Trained alike, from the same float model; torch.fx sees the branch of the large map only."""
    qconfig = {"": default_qat_8bit_fake_quant_qconfig}

    class Traced(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.bn(self.stem(self.quant(x))))
            x = self.pool(self.body_relu(self.add.add(self.body_bn(self.body(x)), x)))
            y: Tensor = self.dequant(self.head_bn(self.head(self.scale.mul_scalar(self.drop(x), 0.5))))
            return y

    source = net()
    traced = Traced().eval()
    traced.load_state_dict(source.state_dict())
    eager = trained(prepare_qat(with_qconfig(fuse_modules(source, GROUPS))))
    fx = trained(prepare_qat_fx(traced, qconfig))

    (x,) = real_inputs((MAP,), 9)
    assert torch.equal(eager(x), fx(x))
    assert torch.equal(convert(eager)(x), convert_fx(fx)(x))  # type: ignore[arg-type]


def test_sub_modules_inherit_the_qconfig_of_the_module_around() -> None:
    model = net()
    model.qconfig = default_qat_8bit_fake_quant_qconfig
    model.head.qconfig = default_qat_out_8bit_fake_quant_qconfig
    prepared: Any = prepare_qat(model)

    assert prepared.stem.activation_post_process is not None
    assert prepared.head.activation_post_process is None
    assert isinstance(prepared.add, QATModule)
    assert type(model.stem) is nn.Conv2d  # the given model is not changed


def test_module_with_qconfig_none_stays_in_float_and_says_what_it_misses() -> None:
    model = with_qconfig(net())
    model.head.qconfig = model.head_bn.qconfig = None
    prepared: Any = prepare_qat(model)

    assert type(prepared.head) is nn.Conv2d
    with pytest.raises(QTensorError, match="use DeQuantStub"):
        prepared(*real_inputs((MAP,), 0))


def test_shared_module_stays_one() -> None:
    model = with_qconfig(net())
    model.again = model.stem
    prepared: Any = prepare_qat(model)

    assert prepared.again is prepared.stem
    prepared(*real_inputs((MAP,), 0))
    converted: Any = convert(prepared)
    assert converted.again is converted.stem


def test_prepare_calibration_observes_and_goes_on_to_training() -> None:
    model = prepare_calibration(with_qconfig(fuse_modules(net(), GROUPS)))
    (x,) = real_inputs((MAP,), 0)
    stem: Any = model.get_submodule("stem")
    model(x)

    assert not model.training
    assert bool(stem.activation_post_process.observer_enabled)
    assert not bool(stem.activation_post_process.fake_quant_enabled)
    trained(model)
    assert differing(convert(model)(x), model(x)) == 0


def test_prepare_calibration_fx_is_ready_for_calibration() -> None:
    class Straight(Net):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.dequant(self.relu(self.bn(self.stem(self.quant(x)))))
            return y

    model = prepare_calibration_fx(Straight().train(), {"": default_qat_8bit_fake_quant_qconfig})
    model(*real_inputs((MAP,), 0))

    assert not model.training
    assert not bool(model.quant.activation_post_process.fake_quant_enabled)
    convert_fx(model)


def test_convert_in_place_and_copies() -> None:
    model = trained(prepare_qat(with_qconfig(net()), inplace=True))
    kept = convert(model)
    assert any(isinstance(module, QATModule) for module in model.modules())
    assert not any(isinstance(module, QATModule) for module in kept.modules())
    assert not any(hasattr(module, "qconfig") for module in kept.modules())
    assert convert(model, inplace=True) is model


def test_own_types_are_replaced_by_mapping() -> None:
    from bpu_qat_nn import OPS

    class MyPool(nn.MaxPool2d):
        pass

    model = net()
    model.pool = MyPool(2)
    prepared: Any = prepare_qat(with_qconfig(model), mapping={MyPool: OPS[nn.MaxPool2d].qat})

    assert isinstance(prepared.pool, QATModule)


def test_what_the_march_refuses_is_listed() -> None:
    model = net()
    model.stem = nn.Conv2d(3, 8, 9, padding=4)
    with march_scope("bernoulli2"), pytest.raises(PrepareError, match="stem"):
        prepare_qat(with_qconfig(model))
    model.qconfig = default_qat_8bit_weight_16bit_act_fake_quant_qconfig
    with march_scope("bernoulli2"), pytest.raises(PrepareError, match="qint16"):
        prepare_qat(model)


def test_model_that_never_ran_is_not_converted() -> None:
    with pytest.raises(ConvertError, match="never seen data"):
        convert(prepare_qat(with_qconfig(net())))


def test_model_without_any_qconfig_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"set model\.qconfig"):
        prepare_qat(net())


def test_module_with_hooks_is_refused() -> None:
    model = with_qconfig(net())
    model.stem.register_forward_hook(lambda module, inputs, output: None)
    with pytest.raises(ArgumentError, match=r"stem .* hooks"):
        prepare_qat(model)
    with pytest.raises(ArgumentError, match=r"stem .* hooks"):
        fuse_modules(model, GROUPS)


def test_eager_and_fx_calls_are_not_mixed() -> None:
    eager = prepare_qat(with_qconfig(net()))
    ordinary = nn.Sequential(QuantStub(), nn.Conv2d(3, 4, 1), DeQuantStub())
    fused = fuse_fx(copy.deepcopy(ordinary).eval())
    traced = prepare_qat_fx(ordinary, {"": default_qat_8bit_fake_quant_qconfig})

    with pytest.raises(ArgumentError, match="not mixed"):
        prepare_qat_fx(eager)
    with pytest.raises(ArgumentError, match="converted by convert"):
        convert_fx(eager)  # type: ignore[arg-type]
    for model in (fused, traced):
        with pytest.raises(ArgumentError, match="use prepare_qat_fx"):
            prepare_qat(model)
        with pytest.raises(ArgumentError, match="fuse_fx"):
            fuse_modules(model, ["0", "1"])
    with pytest.raises(ArgumentError, match="use convert_fx"):
        convert(traced)
    with pytest.raises(ArgumentError, match="already"):
        prepare_qat(eager)
    with pytest.raises(ArgumentError, match="hybrid=True"):
        prepare_qat(net(), hybrid=True)
    with pytest.raises(ArgumentError, match="without QAT modules"):
        convert(net())


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.arguments: tuple[Any, ...] = (None, False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        y: Tensor = self.dequant(self.attention(x, x, x, *self.arguments)[0])
        return y


def test_options_of_attention_may_be_given_by_position() -> None:
    with march_scope(March.BAYES):
        model: Any = prepare_qat(with_qconfig(Attends().eval()))
        set_fake_quantize(model, FakeQuantState.CALIBRATION)
        x = torch.randn(1, 5, 8)
        model.eval()(x)
        set_fake_quantize(model, FakeQuantState.VALIDATION)
        assert differing(model(x), convert(model)(x)) == 0
        model.arguments = (torch.zeros(1, 5).bool(), False)
        with pytest.raises(InputError, match="takes no mask, got key_padding_mask"):
            model(x)
