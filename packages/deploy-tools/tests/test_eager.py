"""Converted models of the eager mode become Programs as those of the FX flow do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bpu_kernels
from bpu_deploy_tools import LoweringError, lower, torch_outputs
from bpu_fx_fusion import FloatFunctional
from bpu_kernels.march import March
from bpu_qat_nn import DeQuantStub, QuantStub, convert, fuse_modules, prepare_calibration
from bpu_qat_nn.testing import real_inputs
from bpu_qconfig import default_qat_8bit_fake_quant_qconfig, march_scope

MAP = (1, 3, 8, 8)


class Net(nn.Module):
    """Arithmetic by FloatFunctional, a layer that is called twice, a branch by shape, two inputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.other, self.dequant = QuantStub(), QuantStub(), DeQuantStub()
        self.stem, self.bn, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        self.add, self.join, self.body = FloatFunctional(), FloatFunctional(), nn.Conv2d(8, 8, 1)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        x = self.relu(self.bn(self.stem(self.quant(data["left"]))))
        y = self.add.add(self.body(self.body(x)), self.other(data["right"]))
        if y.shape[2] == 8:
            y = y[:, :, ::2]
        return {"map": self.dequant(self.join.cat([y, y], 1))}


def converted(march: March) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = Net()
    model.qconfig = default_qat_8bit_fake_quant_qconfig  # type: ignore[assignment]
    left, right = real_inputs((MAP, (1, 8, 8, 8)), 1)
    data = {"left": left, "right": right}
    with march_scope(march):
        prepared = prepare_calibration(fuse_modules(model.eval(), ["stem", "bn", "relu"]))
        prepared(data)
        return convert(prepared), data


@pytest.mark.parametrize("march", list(March))
def test_program_of_an_eager_model_gives_its_integers(march: March) -> None:
    model, data = converted(march)
    program = lower(model, (data,))

    real = {f"data_{name}": np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy()) for name, x in data.items()}
    got = torch_outputs(program, bpu_kernels.run(program, bpu_kernels.quantize_inputs(program, real)))
    assert program.march is march
    assert torch.equal(got["map"], model(data)["map"])


def test_nodes_bear_the_paths_of_their_modules() -> None:
    model, data = converted(March.BAYES)
    names = [node.name for node in lower(model, (data,)).nodes]

    assert names[0] == "stem"
    assert {name.split("_")[0].rstrip("0123456789.") for name in names} >= {"stem", "body", "add", "join"}


def test_error_names_the_module() -> None:
    model, data = converted(March.BAYES)
    with pytest.raises(LoweringError, match="stem: "):
        lower(model, ({**data, "left": torch.zeros(1, 3, 8)},))


@pytest.mark.parametrize("model", [nn.Conv2d(3, 4, 1), Net()], ids=["layer", "float model"])
def test_float_model_is_refused(model: Any) -> None:
    with pytest.raises(LoweringError, match="expected the model that convert_fx or convert returned"):
        lower(model, torch.zeros(MAP))
