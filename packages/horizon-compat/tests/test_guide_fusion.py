"""The guide's chapter "Operator Fusion": the printed structure, and the loops that register the patterns."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from bpu_fx_fusion import FUSION_PATTERNS
from horizon_plugin_pytorch.quantization import prepare_qat_fx
from horizon_plugin_pytorch.quantization.fx.graph_module import QuantizedGraphModule
from horizon_plugin_pytorch.quantization.qconfig import default_qat_8bit_fake_quant_qconfig

PRINTED = """\
ModelForFusion(
  (quantx): QuantStub()
  (quanty): QuantStub()
  (conv): Identity()
  (bn): Identity()
  (relu): Identity()
  (dequant): DeQuantStub()
  (_generated_add_0): ConvAddReLU2d(
    (conv): Conv2d(3, 3, kernel_size=(3, 3), stride=(1, 1))
    (relu): ReLU()
  )
)
"""
"""As in the guide, with the indentation that torch prints."""


def test_fused_model_prints_the_structure_of_the_guide(
    run_script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    run_script("model_for_fusion")

    assert capsys.readouterr().out.startswith(PRINTED)


def test_fused_model_calls_stubs_and_the_fused_module_only(run_script: Callable[[str], ModuleType]) -> None:
    fused = run_script("model_for_fusion").fused_model

    calls = [str(node.target) for node in fused.graph.nodes if node.op == "call_module"]
    assert calls == ["quantx", "quanty", "_generated_add_0", "dequant"]


def test_fused_model_prints_the_forward_of_the_guide(
    run_script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """The guide's names `_generated_add_0` before it calls it; the steps are the same."""
    run_script("model_for_fusion")

    printed = capsys.readouterr().out
    lines = [line.split(";")[0].strip() for line in printed[printed.index("def forward") :].splitlines()]
    assert lines[:6] == [
        "def forward(self, x, y):",
        "quantx = self.quantx(x)",
        "quanty = self.quanty(y)",
        "add_1 = self._generated_add_0(quantx, quanty)",
        "dequant = self.dequant(add_1)",
        "return dequant",
    ]


def test_fused_model_computes_what_the_float_model_does(run_script: Callable[[str], ModuleType]) -> None:
    script = run_script("model_for_fusion")
    x, y = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 6, 6)

    script.float_model.eval()
    torch.testing.assert_close(script.fused_model(x, y), script.float_model(x, y), rtol=1e-5, atol=1e-5)


def test_fused_model_has_one_arithmetic(
    run_script: Callable[[str], ModuleType], assert_one_arithmetic: Callable[..., QuantizedGraphModule]
) -> None:
    inputs = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 6, 6)
    prepared = prepare_qat_fx(
        run_script("model_for_fusion").float_model.eval(), {"": default_qat_8bit_fake_quant_qconfig}
    )
    prepared(*inputs)

    assert_one_arithmetic(prepared, *inputs)


def test_registering_the_patterns_of_the_guide_is_harmless_however_often(
    run_script: Callable[[str], ModuleType],
) -> None:
    before = dict(FUSION_PATTERNS)
    script = run_script("fusion_patterns")

    script.register_fusion_patterns()
    script.register_fusion_patterns()

    assert before == FUSION_PATTERNS
