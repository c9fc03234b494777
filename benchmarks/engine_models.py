"""The competitors: a network as a Program, as ONNX models with unsigned and signed activations, and in torch's float32.

All have the same shapes and weights; scales are such that activations spread over the integers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import torch
from integer_networks import Conv, MaxPool, Network
from measure import Run
from onnx import TensorProto, helper, numpy_helper

import bpu_kernels
from bpu_kernels import ProgramBuilder, march_row, qint8
from bpu_kernels.engine import set_engine_threads
from bpu_kernels.multiplier import Bias, choose_multiplier, choose_residual_scale
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.pool import GlobalAvgPool2d, MaxPool2d

__all__ = ["COMPETITORS", "program"]

SPREAD = 40.0
"""Standard deviation that outputs shall have, in steps."""
MARCH = "bayes-e"


def multipliers(layer: Conv) -> np.ndarray:
    """Return, per channel, the output steps per accumulator unit that give outputs the wanted spread."""
    energy = np.sqrt((layer.weight.astype(np.float64) ** 2).sum(axis=(1, 2, 3)))
    found: np.ndarray = SPREAD / (SPREAD * energy)
    return found


def program(network: Network, batch: int, size: int) -> bpu_kernels.Program:
    """Return the network as a Program."""
    row, builder = march_row(MARCH), ProgramBuilder(MARCH)
    values = {"x": builder.input("x", (batch, size, size, 3), qint8, 1.0)}
    for layer in network.layers:
        x = values[layer.read]
        if isinstance(layer, Conv):
            wanted, add = multipliers(layer), () if layer.add is None else (values[layer.add],)
            bound = 128.0 * np.abs(layer.weight.astype(np.float64)).sum(axis=(1, 2, 3))
            zeros = np.zeros(len(wanted), np.int32)
            conv = Conv2d(
                weight=layer.weight,
                bias=Bias(bias=zeros, bias_left_shift=zeros),
                multiplier=choose_multiplier(wanted, bound, qint8, row),
                residual=choose_residual_scale(0.5 / wanted, row) if add else None,
                stride=(layer.stride,) * 2,
                pad=(layer.pad,) * 2,
                groups=layer.groups,
                relu=layer.relu,
            )
            values[layer.name] = builder.add(conv, x, *add, name=layer.name, scale=1.0)
        elif isinstance(layer, MaxPool):
            values[layer.name] = builder.add(MaxPool2d(kernel=(3, 3), stride=(2, 2), pad=(1, 1)), x, name=layer.name)
        else:
            positions = x.spec.shape[1] * x.spec.shape[2]
            by = choose_multiplier(np.array([1 / positions]), np.array([128.0 * positions]), qint8, row)
            values[layer.name] = builder.add(GlobalAvgPool2d(multiplier=by), x, name=layer.name, scale=1.0)
    builder.output(values[network.last], "y")
    return builder.build()


def onnx_model(network: Network, batch: int, size: int, *, signed: bool) -> bytes:
    """Return the network as ONNX operators of integers; ReLU is the zero point at the bottom of the range."""
    kind, dtype = (TensorProto.INT8, np.int8) if signed else (TensorProto.UINT8, np.uint8)
    bottom, middle = (-128, 0) if signed else (0, 128)
    constants: dict[str, np.ndarray] = {"one": np.array(1, np.float32)}
    nodes = []
    zero = {"x": "middle"}

    def constant(name: str, value: np.ndarray) -> str:
        constants[name] = value
        return name

    constant("bottom", np.asarray(bottom, dtype))
    constant("middle", np.asarray(middle, dtype))

    for layer in network.layers:
        name = layer.name
        if isinstance(layer, Conv):
            last = layer.name == network.last
            summed = name if layer.add is None else f"{name}_products"
            zero[name] = "bottom" if layer.relu else "middle"
            zero[summed] = zero[name] if layer.add is None else "middle"
            weight = np.ascontiguousarray(layer.weight.transpose(0, 3, 1, 2))
            nodes.append(
                helper.make_node(
                    "QLinearConv",
                    [
                        layer.read,
                        "one",
                        zero[layer.read],
                        constant(f"{name}_w", weight),
                        constant(f"{name}_s", multipliers(layer).astype(np.float32)),
                        constant(f"{name}_z", np.zeros(len(weight), np.int8)),
                        "one",
                        zero[summed],
                        constant(f"{name}_b", np.zeros(len(weight), np.int32)),
                    ],
                    [summed],
                    kernel_shape=weight.shape[2:],
                    strides=[layer.stride] * 2,
                    pads=[layer.pad] * 4,
                    group=layer.groups,
                )
            )
            if layer.add is not None:
                operands = [summed, "one", zero[summed], layer.add, "one", zero[layer.add], "one", zero[name]]
                nodes.append(helper.make_node("QLinearAdd", operands, [name], domain="com.microsoft"))
            assert not last or layer.add is None
        elif isinstance(layer, MaxPool):
            zero[name] = zero[layer.read]
            nodes.append(
                helper.make_node(
                    "MaxPool", [layer.read], [name], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
                )
            )
        else:
            zero[name] = zero[layer.read]
            operands = [layer.read, "one", zero[name], "one", zero[name]]
            nodes.append(
                helper.make_node("QLinearGlobalAveragePool", operands, [name], domain="com.microsoft", channels_last=0)
            )
    graph = helper.make_graph(
        nodes,
        network.name,
        [helper.make_tensor_value_info("x", kind, (batch, 3, size, size))],
        [helper.make_tensor_value_info(network.last, kind, (batch, 1000, 1, 1))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    stored: bytes = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return stored


class FloatNetwork(torch.nn.Module):
    """The network in float32."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.convs = torch.nn.ModuleDict()
        for layer in network.layers:
            if isinstance(layer, Conv):
                outputs, kernel, _, inputs = layer.weight.shape
                conv = torch.nn.Conv2d(
                    inputs * layer.groups, outputs, kernel, layer.stride, layer.pad, groups=layer.groups
                )
                conv.weight.data = torch.from_numpy(
                    (layer.weight * multipliers(layer)[:, None, None, None]).transpose(0, 3, 1, 2).astype(np.float32)
                )
                self.convs[layer.name] = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run layer by layer."""
        values = {"x": x}
        for layer in self.network.layers:
            value = values[layer.read]
            if isinstance(layer, Conv):
                value = self.convs[layer.name](value)
                if layer.add is not None:
                    value = value + values[layer.add]
                value = value.relu() if layer.relu else value
            elif isinstance(layer, MaxPool):
                value = torch.nn.functional.max_pool2d(value, 3, 2, 1)
            else:
                value = value.mean((2, 3), keepdim=True)
            values[layer.name] = value
        return values[self.network.last]


def _engine(network: Network, batch: int, size: int, threads: int) -> Run:
    set_engine_threads(threads)
    made = program(network, batch, size)
    x = np.random.default_rng(1).integers(-128, 128, (batch, size, size, 3)).astype(np.int8)
    return lambda: bpu_kernels.run(made, x, backend="native")


def _onnxruntime(network: Network, batch: int, size: int, threads: int, *, signed: bool) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = onnx_model(network, batch, size, signed=signed)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).integers(-128, 128, (batch, 3, size, size))
    feed = {"x": x.astype(np.int8) if signed else (x + 128).astype(np.uint8)}
    return lambda: session.run(None, feed)


def _torch(network: Network, batch: int, size: int, threads: int) -> Run:
    torch.set_num_threads(threads)
    model = FloatNetwork(network).eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)

    def once() -> torch.Tensor:
        with torch.inference_mode():
            result: torch.Tensor = model(x)
        return result

    return once


COMPETITORS: dict[str, Callable[[Network, int, int, int], Run]] = {
    "bpu-kernels": _engine,
    "onnxruntime u8s8": lambda *given: _onnxruntime(*given, signed=False),
    "onnxruntime s8s8": lambda *given: _onnxruntime(*given, signed=True),
    "torch float32": _torch,
}
"""By the name in the table; the first is ours."""
