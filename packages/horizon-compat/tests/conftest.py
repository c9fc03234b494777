"""Fixtures of all tests: a march that a test cannot leave behind, the guide's scripts, and the promise as a check."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

import bpu_kernels
from bpu_deploy_tools import lower, torch_outputs
from bpu_deploy_tools.lowering.layout import channels_last
from bpu_qat_nn import ObservedGraphModule, QuantizedGraphModule
from bpu_qat_nn.testing import differing
from bpu_qconfig import march_scope
from horizon_plugin_pytorch.quantization import FakeQuantState, convert_fx, set_fake_quantize

RunScript = Callable[[str], ModuleType]
AssertOneArithmetic = Callable[..., QuantizedGraphModule]


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    torch.manual_seed(0)
    with march_scope("bayes"):
        yield


@pytest.fixture
def run_script() -> RunScript:
    """Run a script of the guide, ``seed/<name>.py``, and return its names."""

    def run(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "seed" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return run


@pytest.fixture
def assert_one_arithmetic() -> AssertOneArithmetic:
    """Hold a prepared model in VALIDATION state, its converted form and its Program to the same numbers."""

    def check(prepared: ObservedGraphModule, *inputs: Tensor) -> QuantizedGraphModule:
        prepared.eval()
        set_fake_quantize(prepared, FakeQuantState.VALIDATION)
        converted = convert_fx(prepared)
        with torch.no_grad():
            expected = converted(*inputs)
            assert differing(prepared(*inputs), expected) == 0
        program = lower(converted, inputs)
        stored = zip(program.inputs, inputs, strict=True)
        real = {each.name: np.ascontiguousarray(x.permute(channels_last(x.dim())).numpy()) for each, x in stored}
        integers = bpu_kernels.run(program, bpu_kernels.quantize_inputs(program, real))
        assert differing(list(torch_outputs(program, integers).values()), expected) == 0
        return converted

    return check
