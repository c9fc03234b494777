"""A converted model that is called again: one call of the engine, the same integers, and every edit counts at once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook

from bpu_kernels.engine import native_available
from bpu_kernels.torch_ops import Recording, tape_of
from bpu_qat_nn import DeQuantStub, QTensor, QuantizedGraphModule, QuantStub, convert_fx
from bpu_qat_nn.qtensor import plain
from bpu_qat_nn.testing import NETS, calibrate, differing, prepared, real_inputs
from bpu_qconfig import default_qat_out_8bit_fake_quant_qconfig

needs_engine = pytest.mark.skipif(not native_available(), reason="only the native engine runs a part in one call")
SHAPE = (2, 4, 6, 6)
FIRST, SECOND = (real_inputs((SHAPE,), seed=seed) for seed in (4, 5))


class Net(nn.Module):
    """What the engine runs whole: convolutions, an addition, a table, a pool, a layer on flat features."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.sigmoid, self.pool, self.linear = nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        y: Tensor = self.dequant(self.linear(self.pool(self.sigmoid(self.body(x) + x)).flatten(1)))
        return y.softmax(1)


def converted() -> QuantizedGraphModule:
    torch.manual_seed(0)
    model = prepared(Net().eval(), "bayes")
    calibrate(model, (SHAPE,))
    return convert_fx(model)


def called(model: nn.Module, times: int = 3) -> nn.Module:
    for _ in range(times):
        model(*FIRST)
    return model


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the calls of recordings."""
    seen: list[int] = []
    run = Recording.run

    def counted(self: Recording, inputs: Sequence[Tensor]) -> list[Tensor]:
        seen.append(1)
        return run(self, inputs)

    monkeypatch.setattr(Recording, "run", counted)
    return seen


@pytest.mark.parametrize("name", NETS)
def test_net_called_again_gives_the_same_integers(name: str) -> None:
    case = NETS[name]
    wide = [(path, default_qat_out_8bit_fake_quant_qconfig) for path in case.high_precision]
    model = prepared(case.model(), case.marches[-1], module_name=wide)
    calibrate(model, case.shapes)
    quantized = convert_fx(model)
    for seed in (7, 7, 8, 9):
        inputs = real_inputs(case.shapes, seed)
        assert differing(quantized(*inputs), model(*inputs)) == 0


@needs_engine
def test_third_call_is_one_call_of_the_engine(runs: list[int]) -> None:
    model = called(converted(), 2)
    assert not runs
    assert torch.equal(model(*SECOND), converted()(*SECOND))
    assert len(runs) == 1


class Body(nn.Module):
    """A convolution, a function, a convolution."""

    def __init__(self, function: Callable[..., Tensor], channels: int = 4) -> None:
        super().__init__()
        self.quant, self.dequant, self.function = QuantStub(), DeQuantStub(), function
        self.first, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(channels, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(self.last(self.function(self.first(self.quant(x)))))
        return y


def attended(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    tokens = x.flatten(2).transpose(1, 2).reshape(n, h * w, 2, c // 2).transpose(1, 2)
    weights = (tokens @ tokens.transpose(-1, -2)).softmax(-1)
    y: Tensor = (weights @ tokens).transpose(1, 2).reshape(n, h, w, c).permute(0, 3, 1, 2)
    return y


JOINED_AND_MOVED: dict[str, tuple[Callable[..., Tensor], int]] = {
    "joined": (lambda x: torch.cat([F.interpolate(F.max_pool2d(x, 2), scale_factor=2.0), x], 1), 8),
    "padded": (lambda x: F.pad(x, (1, 2, 0, 1)), 4),
    "parts": (lambda x: torch.cat([part.sigmoid() for part in x.chunk(2, 1)][::-1], 1), 4),
    "every second place": (lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, 1::2]], 1), 8),
    "rolled": (lambda x: x.roll((1, -2), (2, 3)), 4),
    "picked": (lambda x: x[:, [2, 0, 1, 1]].repeat(1, 2, 1, 1), 8),
    "stacked": (lambda x: torch.stack([x, x], 1).flatten(1, 2), 8),
    "shuffled": (lambda x: F.pixel_shuffle(x, 2), 1),
    "shuffled by the shape": (lambda x: x.view(x.size(0), 2, x.shape[1] // 2, 6, 6).transpose(1, 2).flatten(1, 2), 4),
    "seen as rows": (lambda x: x.view(x.size(0), -1).view(-1, 4, 6, 6), 4),
    "attended": (attended, 4),
    "repeated": (lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 3, 3), 4),
    "multiplied by its mean": (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(), 4),
}


@needs_engine
@pytest.mark.parametrize("name", JOINED_AND_MOVED)
def test_what_joins_and_moves_is_in_the_one_call(name: str, runs: list[int]) -> None:
    torch.manual_seed(0)
    model = prepared(Body(*JOINED_AND_MOVED[name]).eval(), "bayes")
    calibrate(model, (SHAPE,))
    quantized = called(convert_fx(model), 2)
    for x in (FIRST, SECOND):
        assert torch.equal(quantized(*x), model(*x))
    assert len(runs) == 2


@needs_engine
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("function", [torch.sigmoid, lambda x: x[:, 1:3], lambda x: x + x.roll(1, 1)])
def test_every_call_gives_the_memory_format_of_the_first(
    function: Callable[[Tensor], Tensor], memory_format: torch.memory_format, runs: list[int]
) -> None:
    body = Body(function)
    body.first = body.last = nn.Identity()  # type: ignore[assignment]
    model = prepared(body.eval(), "bayes")
    calibrate(model, (SHAPE,))
    quantized, x = convert_fx(model), SECOND[0].contiguous(memory_format=memory_format)
    first, *others = (quantized(x) for _ in range(4))
    for each in others:
        assert each.stride() == first.stride()
        assert torch.equal(each, first)
    assert (len(runs) == 2) is (function(first).shape == first.shape)  # what only moves elements is not recorded


MOVED_BY_INTEGERS: dict[str, Callable[[Any, Any], object]] = {
    "an element": lambda x, i: x[i[0]],
    "some elements": lambda x, i: x[:, i],
    "a part": lambda x, i: x[:, : i[0]],
    "index_select": lambda x, i: x.index_select(1, i),
    "narrow": lambda x, i: x.narrow(1, i[0], 1),
    "roll": lambda x, i: x.roll((i[0],), (1,)),
}


@pytest.mark.parametrize("name", MOVED_BY_INTEGERS)
def test_movement_that_depends_on_integers_is_not_recorded(name: str) -> None:
    x = QTensor(torch.arange(24, dtype=torch.int8).reshape(2, 3, 4), 1.0)
    index = QTensor(torch.tensor([1, 0], dtype=torch.int32), 1.0, dtype="qint32")
    with tape_of([plain(x), plain(index)]) as tape:
        x.flip(0)
        assert tape.is_whole
        MOVED_BY_INTEGERS[name](x, index)
    assert not tape.is_whole


@needs_engine
def test_other_shapes_and_modes_of_inference_have_results_of_their_own(runs: list[int]) -> None:
    model, (larger,) = called(converted()), real_inputs(((3, 4, 8, 8),), seed=6)
    for _ in range(3):
        assert torch.equal(model(larger), converted()(larger))
        with torch.inference_mode():
            assert torch.equal(model(*SECOND), converted()(*SECOND))
    assert len(runs) == 1 + 2 + 3


@needs_engine
def test_so_many_shapes_are_recorded_and_the_others_run_by_modules(runs: list[int]) -> None:
    model, fresh = converted(), converted()
    for _ in range(3):
        for size in range(4, 10):
            (x,) = real_inputs(((1, 4, size, size),), seed=size)
            assert torch.equal(model(x), fresh.forward(x))
    assert len(runs) == 2 * 4  # the first four that follow the very first call


@needs_engine
def test_threads_may_share_a_model() -> None:
    model = called(converted())
    inputs = [real_inputs((SHAPE,), seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda each: model(*each), inputs))
    assert all(torch.equal(y, converted()(*x)) for x, y in zip(inputs, results, strict=True))


def test_model_that_was_called_is_freed() -> None:
    model = called(converted())
    known = weakref.ref(model)
    del model
    gc.collect()
    assert known() is None


def replaced_layer(model: Any) -> None:
    other = convert_fx(prepared_of_another_seed())
    model.body = other.body


def prepared_of_another_seed() -> Any:
    torch.manual_seed(1)
    model = prepared(Net().eval(), "bayes")
    calibrate(model, (SHAPE,))
    return model


def without_addition(model: Any) -> None:
    (node,) = (each for each in model.graph.nodes if "add" in str(each.target) or str(each.target) == "body.2")
    node.replace_all_uses_with(node.args[0])
    model.graph.erase_node(node)
    model.recompile()


def exchanged_children(model: Any) -> None:
    """Exchange two children; all of them come in the order of before."""
    children, names = dict(model.named_children()), {"sigmoid": "pool", "pool": "sigmoid"}
    for name in children:
        delattr(model, name)
    for name, child in children.items():
        model.add_module(names.get(name, name), child)


def another_class(model: Any) -> None:
    linear = model.get_submodule("linear")
    kind: Any = type(linear)
    linear.__class__ = type("Negative", (kind,), {"forward": lambda self, x: kind.forward(self, x.like(-x.int_repr()))})


def transposed(weight: Tensor) -> None:
    """Exchange axes without moving a byte."""
    weight.data = weight.data.transpose(0, 1)


EDITS: dict[str, Callable[[Any], object]] = {
    "a weight in place": lambda m: m.get_submodule("linear").weight.mul_(-1),
    "weight.data": lambda m: m.get_submodule("linear").weight.data[0].zero_(),
    "bias.data": lambda m: m.get_submodule("linear").bias.data.add_(1.0),
    "another bias": lambda m: setattr(m.get_submodule("linear"), "bias", None),
    "the input's scale": lambda m: m.get_submodule("quant").scale.data.mul_(3.0),
    "another scale": lambda m: setattr(m.get_submodule("sigmoid"), "scale", torch.tensor([0.02])),
    "another module": replaced_layer,
    "the graph": without_addition,
    "the order of a weight's axes": lambda m: transposed(m.get_submodule("body.0").weight),
    "children's names": exchanged_children,
    "the class of a layer": another_class,
    "the model's forward": lambda m: setattr(m, "forward", MethodType(lambda self, x: x * 2.0, m)),
}


@pytest.mark.parametrize("edit", EDITS)
def test_edit_after_many_calls_counts_at_once(edit: str) -> None:
    edited, fresh = called(converted()), converted()
    before = edited(*SECOND)
    for model in (edited, fresh):
        with torch.no_grad():
            EDITS[edit](model)
    expected = fresh(*SECOND)
    assert not torch.equal(expected, before)
    for _ in range(4):
        assert torch.equal(edited(*SECOND), expected)


class WritesInPlace(Body):
    """Part of what the QuantStub reads is overwritten in float, through another name."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1.0
        part = x[:, 0]
        part.mul_(-2.0)
        y: Tensor = self.dequant(self.first(self.quant(x)))
        return y


def test_float_nodes_keep_their_turn() -> None:
    model = prepared(WritesInPlace(torch.sigmoid).eval(), "bayes")
    calibrate(model, (SHAPE,))
    quantized = convert_fx(model)
    for _ in range(4):
        assert torch.equal(quantized(*SECOND), model(*SECOND))


def test_hooks_after_many_calls_see_every_call() -> None:
    model, seen = called(converted()), list[str]()
    linear = model.get_submodule("linear")
    hooks = [
        linear.register_forward_hook(lambda *_: seen.append("module")),
        model.register_forward_hook(lambda *_: seen.append("model")),
        register_module_forward_hook(lambda module, *_: seen.append("any") if module in (linear, model) else None),
    ]
    for count in (1, 2, 3):
        assert torch.equal(model(*SECOND), converted()(*SECOND))
        assert sorted(seen) == ["any"] * 2 * count + ["model"] * count + ["module"] * count
    for hook in hooks:
        hook.remove()
    called(model)
    assert len(seen) == 12


def test_hook_that_changes_a_value_counts() -> None:
    model = called(converted())
    handle = model.get_submodule("pool").register_forward_hook(lambda module, args, y: y.like(-y.int_repr()))
    changed = [model(*SECOND) for _ in range(3)]
    handle.remove()
    assert all(torch.equal(each, changed[0]) for each in changed)
    assert not torch.equal(changed[0], model(*SECOND))


def test_forward_of_its_own_counts() -> None:
    model = called(converted())
    vars(model.get_submodule("linear"))["forward"] = lambda x: x
    assert model(*SECOND).shape == (2, 4)
