"""The table of a Program: what it says, and that it fits."""

from __future__ import annotations

import numpy as np
import pytest

from bpu_kernels import KERNELS, Program, ProgramBuilder, march_row, show
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.multiplier import Bias
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.pool import MaxPool2d
from bpu_kernels.testing import program_of, random_case


def program(name: str = "stem") -> Program:
    builder = ProgramBuilder("bayes")
    x = builder.input("image", (1, 32, 32, 3), "qint8", 1 / 128, source="pyramid")
    conv = Conv2d(
        weight=np.ones((8, 3, 3, 3), np.int8),
        bias=Bias(bias=np.zeros(8, np.int32), bias_left_shift=np.zeros(8, np.int32)),
        multiplier=Multiplier(
            accu_right_shift=np.zeros(1, np.int32),
            output_scale=np.ones(1, np.int32),
            output_right_shift=np.zeros(1, np.int32),
        ),
        stride=(2, 2),
        pad=(1, 1),
        relu=True,
    )
    y = builder.add(conv, x, name=name, scale=[0.1 * n for n in range(1, 9)])
    builder.output(builder.add(MaxPool2d(kernel=(2, 2), stride=(2, 2)), y, name="pool"), "features")
    return builder.build({"model": "demo"})


EXPECTED = """\
Program for bayes (RDK Ultra)
  model: demo
inputs
  image  qint8[1x32x32x3] NHWC, 0.0078125, pyramid
outputs
  features  qint8[1x8x8x8] NHWC, 0.1..0.8 (8), from pool

operator    name  output            scale         parameters                                     MACs  bytes
conv2d      stem  qint8[1x16x16x8]  0.1..0.8 (8)  weight 8x3x3x3 bias stride 2x2 pad 1x1 relu  55,296    292
max_pool2d  pool  qint8[1x8x8x8]    0.1..0.8 (8)  kernel 2x2 stride 2x2

2 nodes, 55,296 MACs, 292 bytes of parameters, 2,560 bytes of activations, no self-test"""


def test_table_says_all_there_is_to_say() -> None:
    assert show(program(), width=200) == EXPECTED


@pytest.mark.parametrize("width", [80, 90, 100, 110, 120])
def test_table_fits_the_width(width: int) -> None:
    table = [
        line
        for line in show(program("backbone.stem.convolution"), width=width).splitlines()
        if line.startswith(("operator", "conv2d"))
    ]
    assert all(len(line) <= width for line in table)
    assert "…" in table[1]


def test_self_test_is_mentioned() -> None:
    tested = program().with_self_test(np.zeros((1, 32, 32, 3), np.int8))
    assert show(tested, width=100).endswith("with self-test")


@pytest.mark.parametrize("name", KERNELS)
def test_every_operator_can_be_shown(name: str) -> None:
    march = next(march for march in ("bayes", "bernoulli2") if name not in march_row(march).refused_kernels)
    for seed in range(10):
        kernel, inputs = random_case(name, march, np.random.default_rng(seed))
        assert f"\n{name} " in show(program_of(kernel, march, inputs)[0])
