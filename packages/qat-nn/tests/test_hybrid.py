"""Hybrid models: what cannot or shall not be quantized stays in float between stubs, the rest is exact as ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_kernels.march import March
from bpu_qat_nn import (
    ArgumentError,
    DeQuantStub,
    ObservedGraphModule,
    PrepareError,
    QATModule,
    QuantStub,
    convert_fx,
    prepare_qat_fx,
)
from bpu_qat_nn.ops.stubs import QATDeQuantStub, QATQuantStub
from bpu_qat_nn.testing import assert_exact, calibrate, differing, prepared, real_inputs, train_steps
from bpu_qconfig import (
    default_qat_8bit_fake_quant_qconfig,
    default_qat_8bit_weight_16bit_act_fake_quant_qconfig,
    march_scope,
)

MAP = (2, 3, 8, 8)
QCONFIG = {"": default_qat_8bit_fake_quant_qconfig}


class NoIntegerForm(nn.Module):
    """What only a CPU does."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sort(x, dim=1).values


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.quant(x))
        y: Tensor = self.dequant(self.head(self.between(self.middle(x) + x)))
        return y

    def between(self, x: Tensor) -> Tensor:
        return x


class Unsupported(Net):
    """A function without an integer form."""

    def between(self, x: Tensor) -> Tensor:
        return torch.sort(x, dim=1).values


class Moved(Net):
    """The result moves before it is quantized again, and is read in float as well."""

    def between(self, x: Tensor) -> Tensor:
        values = torch.sort(x, dim=1).values
        return values.transpose(2, 3) * values.cumsum(1)


class WithoutStubs(Net):
    """Neither a QuantStub, as the first operator is in float, nor a DeQuantStub, as the last is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 1), nn.Softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.first(x))
        y: Tensor = self.last(self.head(self.middle(x)))
        return y


def hybrid(model: nn.Module, qconfig_dict: dict[str, Any] | None = None, **chosen: Any) -> ObservedGraphModule:
    return prepare_qat_fx(model.train(), qconfig_dict or QCONFIG, hybrid=True, hybrid_dict=chosen or None)


def trained(model: ObservedGraphModule) -> ObservedGraphModule:
    calibrate(model, (MAP,))
    train_steps(model, (MAP,))
    return model


def in_float(model: ObservedGraphModule) -> dict[str, str]:
    return {entry.path: entry.reason for entry in model.prepare_report.left}


CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], set[str]]] = {
    "nothing to leave": (Net, {}, set()),
    "unsupported function": (Unsupported, {}, {"sort"}),
    "moved, and read in float": (Moved, {}, {"sort"}),
    "chosen by name": (Net, {"module_name": ["middle"]}, {"middle.0"}),
    "chosen by the name of a fused part": (Net, {"module_name": ["stem.2"]}, {"stem.0"}),
    "chosen by type": (Net, {"module_type": [nn.Conv2d]}, {"stem.0", "middle.0", "head"}),
    "first and last": (WithoutStubs, {"module_name": ["first", "last"]}, {"first", "last"}),
}


@pytest.mark.parametrize("name", CASES)
def test_hybrid_model_is_exact_and_leaves_these_places_in_float(name: str) -> None:
    make, chosen, expected = CASES[name]
    torch.manual_seed(0)
    model = make()
    with march_scope("bayes"):
        observed = trained(hybrid(model, **chosen))
        left = set(in_float(observed))
        assert_exact(observed, real_inputs((MAP,), 7))
    assert expected <= left
    assert not any(isinstance(observed.get_submodule(path), QATModule) for path in left if "." in path)


def test_stubs_around_an_operator_have_the_documented_names() -> None:
    model = hybrid(Net(), module_name=["middle"])

    assert [str(node.target) for node in model.graph.nodes if node.op == "call_module"] == [
        *("quant", "stem.0", "middle_0_input_dequant", "middle.0", "middle_0_activation_post_process"),
        *("head", "dequant"),
    ]
    assert type(model.middle_0_input_dequant) is QATDeQuantStub
    assert type(model.middle_0_activation_post_process) is QATQuantStub


def test_float_operator_computes_as_in_the_float_model() -> None:
    torch.manual_seed(0)
    model = trained(hybrid(Unsupported()))
    seen: dict[str, Any] = {}
    dequant, stub = model.sort_input_dequant, model.getattr_1_activation_post_process
    dequant.register_forward_hook(lambda module, inputs, output: seen.update(before=output))
    stub.register_forward_hook(lambda module, inputs, output: seen.update(after=inputs[0]))
    model(*real_inputs((MAP,), 3))

    assert torch.equal(torch.sort(seen["before"], dim=1).values, seen["after"])


def test_report_says_what_stays_in_float_and_why() -> None:
    model = hybrid(Unsupported(), module_name=["head"])

    assert str(model.prepare_report).splitlines() == [
        "sort (sort) stays in float: this call has no integer form: "
        "the length of its axis is not known without example inputs",
        "head (Conv2d) stays in float: hybrid_dict names head",
    ]


def test_operator_without_qconfig_stays_in_float() -> None:
    model = hybrid(Net(), {**QCONFIG, "module_name": [("head", None)]})

    assert in_float(model) == {"head": "its qconfig is None or missing, but its input is quantized"}
    assert type(model.head) is nn.Conv2d


def test_operator_beyond_the_limits_of_the_march_stays_in_float() -> None:
    class Wide(Net):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(8, 4, 9, padding=4)

    with march_scope("bernoulli2"):
        model = hybrid(Wide())
        assert set(in_float(model)) == {"head"}
        assert_exact(trained(model), real_inputs((MAP,), 2))


def test_shared_module_stays_in_float_at_all_its_places() -> None:
    class Shared(Net):
        def __init__(self) -> None:
            super().__init__()
            self.one = NoIntegerForm()
            self.two = nn.Conv2d(8, 8, 1)
            self.again = self.two

        def between(self, x: Tensor) -> Tensor:
            y: Tensor = self.again(self.two(x) * 0.5)
            return y

    model = hybrid(Shared(), module_name=["two"])
    assert type(model.two) is type(model.again) is nn.Conv2d
    assert_exact(trained(model), real_inputs((MAP,), 2))


def test_stub_behind_a_float_operator_takes_its_qconfig() -> None:
    wide = default_qat_8bit_weight_16bit_act_fake_quant_qconfig
    model = hybrid(Net(), {**QCONFIG, "module_name": [("stem.0", wide)]}, module_name=["stem.0"])

    assert str(model.stem_0_activation_post_process.activation_post_process.dtype) == "qint16"


def test_explicit_dequant_stub_ends_the_quantized_part() -> None:
    """What the user does with real values behind it stays in float, with or without a qconfig."""

    class Tail(Net):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(super().forward(x) * 2.0)

    model = hybrid(Tail())
    assert [str(node.target) for node in model.graph.nodes if node.op == "call_module"][-2:] == [
        *("dequant", "_generated_relu_0"),
    ]
    assert_exact(trained(model), real_inputs((MAP,), 2))


def test_without_a_choice_the_graph_is_that_of_an_ordinary_model() -> None:
    torch.manual_seed(0)
    model = Net().eval()
    ordinary = prepared(model, March.BAYES)
    with march_scope("bayes"):
        same = hybrid(model.eval()).eval()

    assert str(same.graph) == str(ordinary.graph)
    calibrate(ordinary, (MAP,))
    calibrate(same, (MAP,))
    (x,) = real_inputs((MAP,), 1)
    assert differing(convert_fx(same)(x), convert_fx(ordinary)(x)) == 0


def test_mistakes_are_not_hidden_by_leaving_them_in_float() -> None:
    with march_scope("bernoulli2"), pytest.raises(PrepareError, match="qint16"):
        hybrid(Net(), {"": default_qat_8bit_weight_16bit_act_fake_quant_qconfig})
    with pytest.raises(PrepareError, match="no QuantStub"):
        hybrid(WithoutStubs(), module_name=["first", "stem", "middle", "head", "last"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"module_names": []}, "knows 'module_name' and 'module_type'"),
        ({"module_name": "head"}, "takes lists"),
        ({"module_name": ["tail"]}, r"names \['tail'\], but the model has no such module"),
        ({"module_type": ["Conv2d"]}, "takes lists"),
    ],
)
def test_hybrid_dict_is_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        prepare_qat_fx(Net(), QCONFIG, hybrid=True, hybrid_dict=given)


def test_hybrid_dict_without_hybrid_is_refused() -> None:
    with pytest.raises(ArgumentError, match="hybrid=True"):
        prepare_qat_fx(Net(), QCONFIG, hybrid_dict={"module_name": ["head"]})
