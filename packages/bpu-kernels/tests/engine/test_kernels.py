"""The fast kernels where they could go wrong: every middle value, the largest sums, many channels, odd sizes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from bpu_kernels import Program, ProgramBuilder, TensorSpec, march_row, qint8, qint16, qint32, quant_dtype, run
from bpu_kernels.engine.backend import _plans, native_engine
from bpu_kernels.engine.operator import OperatorPlan
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import IntArray, Kernel
from bpu_kernels.multiplier import Bias, ResidualScale
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.conv_transpose import ConvTranspose2d
from bpu_kernels.ops.elementwise import Relu
from bpu_kernels.ops.linear import Linear
from bpu_kernels.testing import assert_integers_equal, every_integer, random_integers

Rng = np.random.Generator


def per_channel(values: list[tuple[int, int, int]]) -> Multiplier:
    """Return the multiplier of (accu_right_shift, output_scale, output_right_shift) per channel."""
    a, m, r = (np.array(column, np.int32) for column in zip(*values, strict=True))
    return Multiplier(accu_right_shift=a, output_scale=m, output_right_shift=r)


def program_after_relu(kernel: Kernel, march: str, *shapes: tuple[tuple[int, ...], object], positive: bool) -> Program:
    """Return a Program whose kernel reads its first input through a ReLU, or as it is."""
    builder = ProgramBuilder(march)
    values = [builder.input(f"x{i}", shape, dtype, 1.0) for i, (shape, dtype) in enumerate(shapes)]
    first = builder.add(Relu(), values[0], name="relu") if positive else values[0]
    builder.output(builder.add(kernel, first, *values[1:], name="node", scale=1.0), "out")
    return builder.build()


def check(kernel: Kernel, march: str, *inputs: IntArray, positive: bool = False) -> None:
    """Compare engine and reference."""
    shapes = [(value.shape, quant_dtype(value.dtype)) for value in inputs]
    program = program_after_relu(kernel, march, *shapes, positive=positive)
    got = run(program, {f"x{i}": value for i, value in enumerate(inputs)}, backend="native")["out"]
    first = np.maximum(inputs[0], 0) if positive else inputs[0]
    assert_integers_equal(got, kernel.run(march_row(march), first, *inputs[1:]))


def natively(kernel: Kernel, *inputs: IntArray, positive: bool = False) -> IntArray:
    """Run a kernel by itself, whatever a march says of its parameters."""
    engine = native_engine()
    assert engine is not None
    specs = [TensorSpec(value.shape, quant_dtype(value.dtype)) for value in inputs]
    plan = OperatorPlan(kernel, march_row("bayes"), specs, positive=positive, library=engine[0], isa=engine[1])
    out = np.empty(plan.out.shape, plan.out.dtype.numpy)
    held = [np.ascontiguousarray(value) for value in inputs]
    plan.run([value.ctypes.data for value in held], out.ctypes.data, threads=2)
    return out


SCALES = [0, 1, 2, 3, 16383, 16384, 16385, 21846, 32766, 32767]


@pytest.mark.parametrize("out", [qint8, qint16], ids=str)
@pytest.mark.parametrize("relu", [False, True], ids=["signed", "ReLU"])
def test_every_middle_value_is_requantized_exactly_where_rounding(out: object, relu: bool, isa: str) -> None:
    """All 65,536 values after the first shift, with scales at the ends and every second shift: (1) and (3)."""
    by = per_channel([(0, m, r) for r, m in product(range(32), SCALES)])
    channels = len(by.output_scale)
    conv = Conv2d(weight=np.ones((channels, 1, 1, 1), np.int8), multiplier=by, relu=relu, out_dtype=quant_dtype(out))
    check(conv, "bayes", every_integer("qint16").reshape(1, 256, 256, 1))


@pytest.mark.parametrize("m", [1, 16384, 21846, 32767])
def test_every_middle_value_is_requantized_exactly_where_flooring(m: int, isa: str) -> None:
    """On Bernoulli2 the input is int8, so the bias of 256 channels covers the upper byte of the middle value."""
    for r in (0, 1, 14, 16, 17, 18, 19, 24, 31):
        conv = Conv2d(
            weight=np.ones((256, 1, 1, 1), np.int8),
            bias=Bias(bias=np.arange(-32640, 32768, 256, dtype=np.int32), bias_left_shift=np.zeros(1, np.int32)),
            multiplier=per_channel([(0, m, r)]),
        )
        check(conv, "bernoulli2", every_integer("qint8").reshape(1, 16, 16, 1))


def test_every_residual_is_added_exactly(isa: str) -> None:
    """All of int8 with scales at the ends and every shift, also those whose term wraps (6)."""
    terms = list(product([0, 1, 127, 16384, 32767], range(-22, 14)))
    conv = Conv2d(
        weight=np.zeros((len(terms), 1, 1, 1), np.int8),
        multiplier=per_channel([(max(shift, 0), 16384, 14) for _, shift in terms]),
        residual=ResidualScale(
            sumin_scale=np.array([scale for scale, _ in terms], np.int32),
            sumin_left_shift=np.array([shift for _, shift in terms], np.int32),
        ),
        out_dtype=qint16,
    )
    residual = np.repeat(every_integer("qint8").reshape(1, 16, 16, 1), len(terms), axis=3)
    check(conv, "bayes", np.zeros((1, 16, 16, 1), np.int8), residual)


def spread(rng: Rng, channels: int, taps: int) -> Multiplier:
    """Return multipliers that spread the accumulators of random data over int8, with both forms of the last shift."""
    right = rng.integers(14, 24, channels)
    accu = np.maximum(int(np.log2(taps**0.5 * 5000 / 128)) + 15 - right, 0)
    return Multiplier(
        accu_right_shift=accu.astype(np.int32),
        output_scale=rng.integers(16384, 32768, channels).astype(np.int32),
        output_right_shift=right.astype(np.int32),
    )


def weights(rng: Rng, shape: tuple[int, ...], kind: str) -> IntArray:
    """Return weights: any, all at an end of int8, or bell-shaped, of which two pairs of products often fit 16 bits."""
    if kind == "any":
        return random_integers(rng, shape)
    if kind == "extreme":
        return rng.choice(np.array([-128, 127], np.int8), shape)
    return np.clip(np.rint(rng.normal(0, 30, shape)), -128, 127).astype(np.int8)


LAYERS: dict[str, dict[str, tuple[int, ...] | int]] = {
    "pointwise": {"kernel": (1, 1), "inputs": 64, "outputs": 70},
    "pointwise of an odd number of channels": {"kernel": (1, 1), "inputs": 37, "outputs": 33},
    "strided": {"kernel": (1, 1), "inputs": 48, "outputs": 40, "stride": (2, 2)},
    "full": {"kernel": (3, 3), "inputs": 24, "outputs": 50, "pad": (1, 1)},
    "deep": {"kernel": (3, 3), "inputs": 256, "outputs": 20, "pad": (1, 1)},
    "of an image": {"kernel": (7, 7), "inputs": 3, "outputs": 64, "stride": (2, 2), "pad": (3, 3)},
    "wide kernel": {"kernel": (1, 5), "inputs": 9, "outputs": 17, "pad": (0, 2)},
    "grouped": {"kernel": (3, 3), "inputs": 40, "outputs": 80, "groups": 4, "pad": (1, 1)},
    "dilated": {"kernel": (3, 3), "inputs": 20, "outputs": 32, "dilation": (2, 2), "pad": (2, 2)},
    **{
        f"depthwise of {channels}": {"kernel": (3, 3), "inputs": channels, "groups": channels, "pad": (1, 1)}
        for channels in (15, 16, 31, 32, 63, 64, 65, 130)
    },
    "depthwise strided": {"kernel": (3, 3), "inputs": 96, "groups": 96, "stride": (2, 2), "pad": (1, 1)},
    "depthwise of 5": {"kernel": (5, 5), "inputs": 72, "groups": 72, "pad": (2, 2)},
    "depthwise of 7 taps": {"kernel": (1, 7), "inputs": 64, "groups": 64, "pad": (0, 3)},
}


@pytest.mark.parametrize("kind", ["any", "extreme", "bell-shaped"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_layer_of_many_channels_is_exact(layer: dict[str, tuple[int, ...]], kind: str, isa: str) -> None:
    rng = np.random.default_rng(7)
    given: dict[str, object] = dict(layer)
    kernel, inputs = layer["kernel"], int(str(given.pop("inputs")))
    outputs, groups = int(str(given.pop("outputs", inputs))), int(str(given.get("groups", 1)))
    del given["kernel"]
    weight = weights(rng, (outputs, *kernel, inputs // groups), kind)
    taps = int(np.prod(weight.shape[1:]))
    for positive, with_residual in product([False, True], [False, True]):
        plain = Conv2d(weight=weight, multiplier=spread(rng, outputs, taps), relu=with_residual, **given)  # type: ignore[arg-type]
        x = random_integers(rng, (2, 9, 11, inputs))
        x[0] = rng.choice(np.array([-128, 127], np.int8), x.shape[1:])
        if not with_residual:
            check(plain, "bayes", x, positive=positive)
            continue
        scale = ResidualScale(sumin_scale=np.array([20000], np.int32), sumin_left_shift=np.array([-5], np.int32))
        conv = Conv2d(**(vars(plain) | {"residual": scale}))
        residual = random_integers(rng, plain.run(march_row("bayes"), x).shape)
        check(conv, "bayes", x, residual, positive=positive)


@pytest.mark.parametrize("groups", [1, 4, 40])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "more"),
    [((2, 2), 2, 0, 0), ((4, 4), 2, 1, 0), ((3, 3), 2, 1, 1), ((4, 2), 4, 0, 0), ((3, 3), 4, 1, 1), ((5, 4), 2, 2, 0)],
    ids=str,
)
def test_transposed_convolution_of_many_channels_is_exact(
    kernel: tuple[int, int], stride: int, pad: int, more: int, groups: int, isa: str
) -> None:
    """Phases with several taps, with one, and with none; padding that begins inside the input."""
    rng = np.random.default_rng(9)
    weight = weights(rng, (40, *kernel, 40 // groups), "bell-shaped")
    plain = ConvTranspose2d(
        weight=weight,
        multiplier=spread(rng, 40, int(np.prod(kernel)) * 40 // groups),
        stride=(stride, stride),
        pad=(pad, pad),
        output_padding=(more, more),
        groups=groups,
    )
    scale = ResidualScale(sumin_scale=np.array([20000], np.int32), sumin_left_shift=np.array([-5], np.int32))
    summed = ConvTranspose2d(**(vars(plain) | {"residual": scale, "relu": True}))
    x, row = random_integers(rng, (2, 5, 7, 40)), march_row("bayes")
    residual = random_integers(rng, plain.run(row, x).shape)
    assert_integers_equal(natively(plain, x), plain.run(row, x))
    assert_integers_equal(natively(summed, x, residual), summed.run(row, x, residual))
    assert_integers_equal(natively(plain, x >> 1 & 127, positive=True), plain.run(row, x >> 1 & 127))


@pytest.mark.parametrize(("march", "relu"), [("bernoulli2", False), ("bayes", False), ("bayes", True)])
def test_accumulators_are_shifted_and_given_out_exactly(march: str, relu: bool, isa: str) -> None:
    """(2) with every shift, over odd numbers of channels, deep and depthwise layers, and biases up to 32 bits."""
    rng = np.random.default_rng(11)
    for (kernel, inputs, groups), positive in product(
        [(1, 37, 1), (3, 24, 1), (3, 70, 70), (3, 256, 1)], [False, True]
    ):
        weight = weights(rng, (70, kernel, kernel, inputs // groups), "extreme")
        bias = rng.choice(np.array([0, 1, 2**20, 2**31 - 2**29, -(2**31)], np.int64), 70).astype(np.int32)
        conv = Conv2d(
            weight=weight,
            bias=Bias(bias=bias, bias_left_shift=np.zeros(1, np.int32)),
            multiplier=per_channel([(0, 0, c % 32) for c in range(70)]),
            pad=(kernel // 2,) * 2,
            groups=groups,
            relu=relu,
            out_dtype=qint32,
        )
        small = Conv2d(**(vars(conv) | {"bias": Bias(bias=bias >> 16, bias_left_shift=np.zeros(1, np.int32))}))
        for each in (small,) if march == "bernoulli2" else (small, conv):  # whose biases have 16 bits
            check(each, march, random_integers(rng, (2, 5, 7, inputs)), positive=positive)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 9])
def test_any_number_of_rows_is_exact(rows: int, isa: str) -> None:
    rng = np.random.default_rng(rows)
    for features, outputs, positive in product((1, 8, 21, 64), (1, 15, 16, 49), (False, True)):
        linear = Linear(
            weight=weights(rng, (outputs, features), "bell-shaped"), multiplier=spread(rng, outputs, features)
        )
        check(linear, "bayes", random_integers(rng, (rows, features)), positive=positive)


def test_sums_beyond_32_bits_take_the_slow_way(isa: str) -> None:
    """A bias near 2**31 does not wrap when products are added, nor when they are subtracted."""
    rng = np.random.default_rng(3)
    for bias in (2**31 - 1, -(2**31)):
        conv = Conv2d(
            weight=weights(rng, (20, 3, 3, 16), "extreme"),
            bias=Bias(bias=np.full(20, bias, np.int32), bias_left_shift=np.zeros(1, np.int32)),
            multiplier=per_channel([(16, 32767, 15)]),
            pad=(1, 1),
        )
        check(conv, "bayes", random_integers(rng, (1, 6, 6, 16)))
        check(conv, "bayes", random_integers(rng, (1, 6, 6, 16)), positive=True)


def test_plans_of_different_instruction_sets_live_side_by_side(engine: object, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    conv = Conv2d(weight=weights(rng, (32, 3, 3, 32), "any"), multiplier=spread(rng, 32, 288), pad=(1, 1))
    program = program_after_relu(conv, "bayes", ((1, 8, 8, 32), qint8), positive=True)
    x = random_integers(rng, (1, 8, 8, 32))
    found = []
    for name in ("portable", "avx2", "avx512"):
        monkeypatch.setenv("BPU_ENGINE_ISA", name)
        found.append(run(program, x, backend="native")["out"])
    assert len(_plans[program]) == 3
    expected = run(program, x, backend="numpy")["out"]
    for got in found:
        assert_integers_equal(got, expected)
