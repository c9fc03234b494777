"""Edits between forward passes: nothing that was derived from weights and scales outlives them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_qat_nn import DeQuantStub, ObservedGraphModule, QuantStub, convert_fx
from bpu_qat_nn.derived import Derived
from bpu_qat_nn.testing import assert_exact, calibrate, differing, prepared, real_inputs

SHAPE = (2, 4, 6, 6)
(INPUT,) = real_inputs((SHAPE,), seed=4)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.sigmoid, self.linear = nn.Conv2d(4, 4, 3, padding=1), nn.Sigmoid(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        y: Tensor = self.dequant(self.linear(self.sigmoid(F.relu(self.conv(x) + x)) * x))
        return y


def calibrated() -> ObservedGraphModule:
    torch.manual_seed(0)
    model = prepared(Net().eval(), "bayes")
    calibrate(model, (SHAPE,))
    return model


EDITS: dict[str, Callable[[nn.Module], object]] = {
    "weight in place": lambda m: m.get_submodule("linear").weight.mul_(-1),  # type: ignore[operator]
    "weight.data": lambda m: m.get_submodule("linear").weight.data.mul_(-1),  # type: ignore[operator]
    "one weight": lambda m: m.get_submodule("linear").weight.data[0].zero_(),  # type: ignore[index]
    "bias.data": lambda m: m.get_submodule("linear").bias.data.add_(1.0),  # type: ignore[operator]
    "another bias": lambda m: setattr(m.get_submodule("linear"), "bias", None),
}
SCALE_EDITS: dict[str, Callable[[nn.Module, str], object]] = {
    "fill_": lambda m, path: m.get_submodule(path).scale.fill_(0.05),  # type: ignore[operator]
    "data": lambda m, path: m.get_submodule(path).scale.data.mul_(3.0),  # type: ignore[operator]
    "another": lambda m, path: setattr(m.get_submodule(path), "scale", torch.tensor([0.02])),
}


@pytest.mark.parametrize("edit", EDITS)
def test_edited_weights_of_a_model_under_training_count_at_once(edit: str) -> None:
    model = calibrated()
    before = model(INPUT)
    with torch.no_grad():
        EDITS[edit](model)
    assert differing(model(INPUT), before) > 0
    assert_exact(model, (INPUT,))


@pytest.mark.parametrize("edit", EDITS)
def test_edited_weights_of_a_converted_model_count_at_once(edit: str) -> None:
    edited, fresh = convert_fx(calibrated()), convert_fx(calibrated())
    before = edited(INPUT)
    for model in (edited, fresh):
        with torch.no_grad():
            EDITS[edit](model)
    assert differing(edited(INPUT), fresh(INPUT)) == 0
    assert differing(edited(INPUT), before) > 0


@pytest.mark.parametrize("edit", SCALE_EDITS)
@pytest.mark.parametrize("path", ["quant", "_generated_add_0", "sigmoid", "_generated_mul_0", "linear"])
def test_edited_scales_of_a_converted_model_count_at_once(path: str, edit: str) -> None:
    edited, fresh = convert_fx(calibrated()), convert_fx(calibrated())
    before = edited(INPUT)
    for model in (edited, fresh):
        with torch.no_grad():
            SCALE_EDITS[edit](model, path)
    assert differing(edited(INPUT), fresh(INPUT)) == 0
    assert differing(edited(INPUT), before) > 0


@pytest.mark.parametrize("path", ["quant", "_generated_add_0", "sigmoid", "linear"])
def test_edited_scales_of_a_model_under_training_count_at_once(path: str) -> None:
    model = calibrated()
    before = model(INPUT)
    model.get_submodule(f"{path}.activation_post_process").scale.data.mul_(3.0)  # type: ignore[operator]
    assert differing(model(INPUT), before) > 0
    assert_exact(model, (INPUT,))


def test_edited_graph_of_a_converted_model_is_its_own() -> None:
    model = calibrated()
    before = model(INPUT)
    converted = convert_fx(model)
    (dequant,) = (node for node in converted.graph.nodes if node.target == "dequant")
    dequant.replace_all_uses_with(dequant.args[0])
    converted.graph.erase_node(dequant)
    converted.recompile()
    model.recompile()

    assert torch.equal(model(INPUT), before)
    assert torch.equal(convert_fx(model)(INPUT), before)


def test_one_module_called_with_inputs_of_different_scale_agrees() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant, self.head = QuantStub(), DeQuantStub(), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.quant(x)
            levels = [self.head(x * factor) for factor in (1.0, 0.1, 30.0)]
            y: Tensor = self.dequant(torch.cat([*levels, self.head(levels[0])], 1))
            return y

    model = prepared(Pyramid().eval(), "bernoulli2")
    calibrate(model, (SHAPE,))
    converted = assert_exact(model, (INPUT,))
    assert differing(converted(INPUT), model(INPUT)) == 0  # once more, from what is remembered


class TestDerived:
    def test_result_is_kept_while_contents_are(self) -> None:
        derived, calls, x = Derived(), [], torch.ones(3)
        for _ in range(3):
            derived.get([x, None], lambda: calls.append(1), "key")
        derived.get([x.clone(), None], lambda: calls.append(1), "key")
        assert len(calls) == 1

    @pytest.mark.parametrize("change", ["contents", "key", "none", "shape"])
    def test_result_is_built_again_after_a_change(self, change: str) -> None:
        derived, calls, x = Derived(), [], torch.ones(3)
        derived.get([x], lambda: calls.append(1), "key")
        if change == "contents":
            x.data[1] = 7.0
        sources: list[Tensor | None] = [None if change == "none" else x[None] if change == "shape" else x]
        derived.get(sources, lambda: calls.append(1), "other" if change == "key" else "key")
        assert len(calls) == 2

    def test_nothing_is_kept_if_told_so(self) -> None:
        derived, calls = Derived(keeps=False), []
        for _ in range(2):
            derived.get([torch.ones(1)], lambda: calls.append(1))
        assert len(calls) == 2

    def test_only_the_latest_results_are_kept(self) -> None:
        derived = Derived()
        for number in range(100):
            derived.get([torch.tensor([number])], lambda: None)
        assert len(derived._entries) == 16

    @pytest.mark.parametrize(("device", "expected"), [("cpu", 1), ("meta", 2)])
    def test_by_contents_remembers_nothing_where_contents_cannot_be_seen(self, device: str, expected: int) -> None:
        """Fake quantizers write scales through ``.data``, which changes no version."""
        derived, calls, x = Derived(by_contents=True), list[int](), torch.ones(1, device=device)
        for _ in range(2):
            derived.get([x], lambda: calls.append(1))
        assert len(calls) == expected
