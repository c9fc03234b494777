"""Tracing with example inputs: Python may ask for sizes, and gets the example's."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bpu_fx_fusion import ConfigError, TraceError, fuse_fx, wrap


class Calls(nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Call it."""
        return self.function(x)


def by_a_condition(x: Tensor) -> Tensor:
    return x * 2 if x.shape[2] % 2 == 0 and x.dim() == 4 else x


def by_a_loop(x: Tensor) -> Tensor:
    for index in range(x.shape[1]):
        x = x + index
    return x


def by_iteration(x: Tensor) -> Tensor:
    return torch.cat(list(x.unbind(1)), 1) if len(x) > 1 else x


def by_rounding(x: Tensor) -> Tensor:
    return x[:, :, : int(math.ceil(x.size(2) / 3)), : round(x.size(-1) * 0.4)]  # noqa: RUF046 (as users write it)


def by_an_assertion(x: Tensor) -> Tensor:
    torch._assert(x.shape[1] == 4, "four channels")  # type: ignore[no-untyped-call]
    assert x.ndim == 4
    return x + 1


def by_a_new_tensor(x: Tensor) -> Tensor:
    mask = x.new_zeros(x.shape[2], x.shape[3])
    mask[0] = 3.0
    return x + mask


def by_new_tensors_of_its_shape(x: Tensor) -> Tensor:
    return x + torch.ones(x.shape, dtype=x.dtype, device=x.device) * x.new_ones(x.shape)


def by_unpacking(x: Tensor) -> Tensor:
    _, c, *space = x.shape
    return x.reshape(-1, c * math.prod(space))


def by_type(x: Tensor) -> Tensor:
    return x.to(torch.float32).float() if x.dtype == torch.float32 else x.double()


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    function.__name__: function
    for function in (
        *(by_a_condition, by_a_loop, by_iteration, by_rounding, by_an_assertion),
        *(by_a_new_tensor, by_unpacking, by_type),
    )
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_python_decides_by_the_sizes_of_the_example(name: str) -> None:
    model = Calls(FUNCTIONS[name])
    gm = fuse_fx(model, example_inputs=torch.randn(2, 4, 6, 5))
    x = torch.randn(2, 4, 6, 5)
    assert torch.equal(gm(x), model(x))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "by_iteration"])
def test_the_batch_stays_free(name: str) -> None:
    model = Calls(FUNCTIONS[name])
    gm = fuse_fx(model, example_inputs=(torch.randn(2, 4, 6, 5),))
    x = torch.randn(3, 4, 6, 5)
    assert torch.equal(gm(x), model(x))


def test_the_batch_is_fixed_where_the_forward_computes_with_it_in_a_way_that_cannot_be_recorded() -> None:
    table = torch.arange(6.0).reshape(1, 6)
    model = Calls(lambda x: x + table.expand(x.shape[0], -1))
    gm = fuse_fx(model, example_inputs=torch.randn(2, 6))
    x = torch.randn(2, 6)
    assert torch.equal(gm(x), model(x))


def test_what_only_python_decided_by_leaves_no_trace_in_the_graph() -> None:
    gm = fuse_fx(Calls(by_a_condition), example_inputs=torch.randn(2, 4, 6, 5))
    assert [node.op for node in gm.graph.nodes] == ["placeholder", "get_attr", "call_method", "output"]


def test_tracing_leaves_running_statistics_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), Calls(by_a_condition)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fuse_fx(model, example_inputs=torch.randn(2, 3, 6, 6))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_contents_of_a_tensor_decide_nothing() -> None:
    model = Calls(lambda x: x if x.sum() > 0 else -x)
    with pytest.raises(TraceError, match="Python cannot choose a branch"):
        fuse_fx(model, example_inputs=torch.ones(2, 3))


def test_writing_into_a_part_is_refused_with_a_way_out() -> None:
    def writes(x: Tensor) -> Tensor:
        x[:, 0] = 1.0
        return x

    with pytest.raises(TraceError, match=r"x\[:, 0\] = 1\.0[\s\S]*torch\.cat"):
        fuse_fx(Calls(writes), example_inputs=torch.ones(2, 3))


def into_a_corner(x: Tensor) -> Tensor:
    y = x * 1.0
    y[:, 1:, :-1] = x[:, 1:, :-1] + 5
    return y


def into_one_channel(x: Tensor) -> Tensor:
    y = x * 1.0
    y[..., 2] = x[..., 0]
    return y + y[:, 0:1]


def into_all(x: Tensor) -> Tensor:
    y = x * 1.0
    y[:] = x + 1
    return y


@pytest.mark.parametrize("function", [into_a_corner, into_one_channel, into_all], ids=lambda each: each.__name__)
def test_writing_a_tensor_into_a_part_is_recorded(function: Callable[[Tensor], Tensor]) -> None:
    gm = fuse_fx(Calls(function), example_inputs=torch.ones(2, 3, 4))
    x = torch.randn(5, 3, 4)
    assert torch.equal(gm(x), function(x))


def of_the_batch(x: Tensor) -> Tensor:
    y = x * 1.0
    y[0] = x[1]
    return y


def of_a_view(x: Tensor) -> Tensor:
    y = (x * 1.0).transpose(1, 2)
    y[:, :1] = x[:, :, 0].unsqueeze(1)
    return y


def of_another_shape(x: Tensor) -> Tensor:
    y = x * 1.0
    y[:, :2] = x[:, :1]
    return y


@pytest.mark.parametrize(
    ("function", "reason"),
    [(of_the_batch, "elements of the batch"), (of_a_view, "part of a view"), (of_another_shape, r"with a value of")],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_cannot_be_written_is_refused_at_its_line(function: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(TraceError, match=rf"y\[.*\] = [\s\S]*{reason}[\s\S]*torch\.cat"):
        fuse_fx(Calls(function), example_inputs=torch.ones(2, 3, 4))


def test_view_from_before_a_write_is_refused_after_it() -> None:
    def stale(x: Tensor) -> Tensor:
        y = x * 1.0
        first = y[:, 0]
        y[:, 0:1] = x[:, 1:2]
        return y + first.unsqueeze(1)

    with pytest.raises(TraceError, match="taken before another part of it is written to"):
        fuse_fx(Calls(stale), example_inputs=torch.ones(2, 3, 4))


def test_lengths_of_parameters_are_no_batch() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(7, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.table.t()[:, : self.table.shape[0] // 2]

    model = Model()
    gm = fuse_fx(model, example_inputs=torch.ones(2, 3))
    assert torch.equal(gm(torch.ones(4, 3)), model(torch.ones(4, 3)))
    assert not [node for node in gm.graph.nodes if node.target == "size"]


def test_einops_is_traced_through() -> None:
    einops = pytest.importorskip("einops")

    def attention(x: Tensor) -> Tensor:
        q, k = einops.rearrange(x, "b (two h d) y x -> two b h (y x) d", two=2, h=2)
        pooled = einops.reduce(q @ k.transpose(-2, -1), "b h i j -> b h i", "mean")
        y: Tensor = einops.repeat(pooled, "b h (y x) -> b (h 3) y x", y=x.shape[2])
        return y

    layer = pytest.importorskip("einops.layers.torch").Rearrange("b c y x -> b x (c y)")
    gm = fuse_fx(nn.Sequential(Calls(attention), layer), example_inputs=torch.ones(2, 8, 3, 5))
    x = torch.randn(4, 8, 3, 5)
    torch.testing.assert_close(gm(x), layer(attention(x)))
    assert not [node for node in gm.graph.nodes if "einops" in str(node.target)]


def test_wrapped_code_stays_whole() -> None:
    @wrap()
    def chosen(x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x

    gm = fuse_fx(Calls(lambda x: chosen(x) + 1), example_inputs=torch.ones(2, 3))
    assert torch.equal(gm(-torch.ones(2, 3)), torch.full((2, 3), 2.0))


def test_examples_that_the_forward_does_not_take_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"not what Calls\.forward takes"):
        fuse_fx(Calls(by_a_condition), example_inputs=(torch.ones(1), torch.ones(1)))


def test_examples_may_be_given_by_name() -> None:
    gm = fuse_fx(Calls(by_a_condition), example_inputs={"x": torch.randn(2, 4, 6, 5)})
    assert gm(torch.ones(1, 4, 6, 5)).max() == 2


def test_what_is_written_to_later_is_made_in_every_call() -> None:
    model = Calls(lambda x: x * x.new_empty(x.shape[0], 1).bernoulli_(0.5))
    gm = fuse_fx(model, example_inputs=torch.ones(64, 2))
    x = torch.ones(64, 2)
    assert not torch.equal(gm(x), gm(x))


def test_a_new_tensor_of_the_size_of_the_batch_fixes_the_batch_everywhere() -> None:
    model = Calls(lambda x: torch.cat([x.new_zeros(x.shape[0], 1), x.reshape(x.shape[0], -1)], 1))
    gm = fuse_fx(model, example_inputs=torch.ones(2, 3, 4))
    x = torch.randn(2, 3, 4)
    assert torch.equal(gm(x), model(x))
    assert not [node for node in gm.graph.nodes if node.target == "size"]


def test_a_new_tensor_lies_where_the_example_lies() -> None:
    examples = fuse_fx(Calls(lambda x: x + x.new_ones(2, 3)), example_inputs=torch.empty(4, 2, 3, device="meta"))
    assert [buffer.device.type for buffer in examples.buffers()] == ["meta"]


@pytest.mark.filterwarnings("ignore:The use of `x.T` on tensors of dimension")
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4)], ids=str)
def test_transposes_are_those_of_torch(shape: tuple[int, ...]) -> None:
    for model in (Calls(lambda x: x.T * 1.0), Calls(lambda x: x.mT * 1.0)):
        gm = fuse_fx(model, example_inputs=torch.ones(shape))
        x = torch.randn(shape)
        assert torch.equal(gm(x), model(x))
