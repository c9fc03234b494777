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
from bpu_qat_nn.ops.composites.division import Inverse, InverseRoot
from bpu_qat_nn.ops.composites.softmax import InverseOfSum
from bpu_qat_nn.ops.segment_table import segment_table

STEPS = torch.arange(-(2**15), 2**15)

CASES: dict[str, tuple[Callable[[Tensor], Tensor], float, float, float]] = {
    "exp_up_to_0": (torch.exp, 12.3, 1.0, 1.5),
    "exp_far_below_0": (torch.exp, 68.0, 1.0, 1.5),
    "exp_short": (torch.exp, 1.0, 1.0, 1.5),
    "inverse_of_few": (InverseOfSum(), 9.0, 1.0, 2.0),
    "inverse_of_many": (InverseOfSum(), 512.0, 1.0, 8.0),
    "inverse_root": (InverseRoot(1e-3), 10.0, 3.0, 3.0),
    "logarithm": (torch.log, 10.0, 5.0, 4.0),
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

POLES: dict[str, tuple[Callable[[Tensor], Tensor], float, float, float]] = {
    "reciprocal": (torch.reciprocal, 8.0, 1.0, 8.0),
    "reciprocal_of_few_that_saturate": (torch.reciprocal, 8.0, 20.0, 32.0),
    "reciprocal_that_saturates_at_two_steps": (torch.reciprocal, 2.0, 16383.5, 8.0),
    "reciprocal_that_nearly_always_saturates": (torch.reciprocal, 8.0, 0.13, 2.0),
    "reciprocal_that_always_saturates": (torch.reciprocal, 8.0, 0.1, 0.5),
    "inverse": (Inverse(), 8.0, 1.0, 16.0),
    "inverse_of_few_that_saturate": (Inverse(), 8.0, 20.0, 300.0),
    "inverse_that_always_saturates": (Inverse(), 8.0, 0.1, 0.5),
    "odd_power": (lambda x: x**-3, 2.0, 8.0, 32.0),
    "even_power": (lambda x: x**-2, 2.0, 8.0, 16.0),
    "tangent": (torch.tan, 2.0, 4.0, 16.0),
}
"""The same for functions with poles among their inputs."""


@pytest.mark.parametrize("name", CASES | POLES)
def test_table_is_near_the_function_on_every_step(name: str) -> None:
    function, reach, largest, allowed = (CASES | POLES)[name]
    x_scale, scale = reach / 32767, largest / 32767
    kernel = segment_table(function, x_scale, scale, torch.device("cpu"))
    found = run(kernel, march_row("bayes"), STEPS.to(torch.int16)).double()
    exact = torch.nan_to_num(function(STEPS.double() * x_scale) / scale).clamp(-(2**15), 2**15 - 1)
    assert float((found - exact).abs().max()) <= allowed


@pytest.mark.parametrize("name", POLES)
def test_outputs_beside_a_pole_have_their_sign_and_saturate(name: str) -> None:
    function, reach, largest, _ = POLES[name]
    kernel = segment_table(function, reach / 32767, largest / 32767, torch.device("cpu"))
    found = run(kernel, march_row("bayes"), STEPS.to(torch.int16)).double()
    exact = function(STEPS.double() * reach / 32767) / largest * 32767
    clear, beyond = exact.abs() >= 1, exact.abs() >= 2**16
    assert torch.equal(found[clear].sign(), exact[clear].sign())
    assert bool((found[beyond].abs() >= 2**15 - 1).all())


@pytest.mark.parametrize("name", CASES)
def test_zones_ascend_and_have_their_least_length(name: str) -> None:
    function, reach, largest, _ = CASES[name]
    line = segment_table(function, reach / 32767, largest / 32767, torch.device("cpu")).line
    borders = line.max.tolist()
    assert borders[0] >= -(2**15)
    assert borders[-1] == 2**15 - 1
    assert all(high - low >= 63 for low, high in pairwise(borders[:-1]))
