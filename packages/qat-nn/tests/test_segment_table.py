"""Segment tables: how far the looked-up integers are from the function, on every int16 step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bpu_kernels.march import march_row
from bpu_kernels.torch_ops import run
from bpu_qat_nn.ops.composites.division import InverseRoot
from bpu_qat_nn.ops.composites.softmax import InverseOfSum
from bpu_qat_nn.ops.segment_table import segment_table

STEPS = torch.arange(-(2**15), 2**15)

CASES: dict[str, tuple[Callable[[Tensor], Tensor], float, float, float]] = {
    "exp_up_to_0": (torch.exp, 12.3, 1.0, 1.5),
    "exp_far_below_0": (torch.exp, 68.0, 1.0, 1.5),
    "exp_short": (torch.exp, 1.0, 1.0, 1.5),
    "inverse_of_few": (InverseOfSum(), 9.0, 1.0, 2.0),
    "inverse_of_many": (InverseOfSum(), 512.0, 1.0, 8.0),
    "inverse_root": (InverseRoot(1e-3), 10.0, 3.0, 64.0),
    "logarithm": (torch.log, 10.0, 5.0, 64.0),
    "root": (torch.sqrt, 10.0, 3.2, 16.0),
    "sigmoid": (torch.sigmoid, 8.0, 1.0, 3.0),
    "tanh": (torch.tanh, 4.0, 1.0, 3.0),
    "gelu": (F.gelu, 4.0, 4.0, 3.0),
    "elu": (F.elu, 5.0, 5.0, 8.0),
    "relu6": (F.relu6, 8.0, 6.0, 2.0),
    "constant": (lambda x: x * 0 + 1, 8.0, 2.0, 1.0),
    "not_defined": (lambda x: x * torch.nan, 8.0, 2.0, 1.0),
}
"""Function, ranges of input and output, and the most that an output may be off, in steps of 1 / 32767 of its range."""


@pytest.mark.parametrize("name", CASES)
def test_table_is_near_the_function_on_every_step(name: str) -> None:
    function, reach, largest, allowed = CASES[name]
    x_scale, scale = reach / 32767, largest / 32767
    kernel = segment_table(function, x_scale, scale, torch.device("cpu"))
    found = run(kernel, march_row("bayes"), STEPS.to(torch.int16)).double()
    exact = torch.nan_to_num(function(STEPS.double() * x_scale) / scale).clamp(-(2**15), 2**15 - 1)
    assert float((found - exact).abs().max()) <= allowed


@pytest.mark.parametrize("name", CASES)
def test_zones_ascend_and_have_their_least_length(name: str) -> None:
    function, reach, largest, _ = CASES[name]
    line = segment_table(function, reach / 32767, largest / 32767, torch.device("cpu")).line
    borders = line.max.tolist()
    assert borders[0] >= -(2**15)
    assert borders[-1] == 2**15 - 1
    assert all(high - low >= 63 for low, high in pairwise(borders[:-1]))
