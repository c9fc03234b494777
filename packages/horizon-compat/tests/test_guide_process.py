"""The guide's chapter "Introduction to FX Quantization": fuse, prepare, convert."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from horizon_plugin_pytorch.fx.graph_module import GraphModuleWithAttr, ObservedGraphModule, QuantizedGraphModule
from horizon_plugin_pytorch.nn import qat, quantized


@pytest.fixture
def script(run_script: Callable[[str], ModuleType]) -> ModuleType:
    return run_script("quantization_process")


def test_stages_are_graph_modules_of_the_documented_types(script: ModuleType) -> None:
    assert isinstance(script.fused_model, GraphModuleWithAttr)
    assert isinstance(script.qat_model, ObservedGraphModule)
    assert isinstance(script.quantized_model, QuantizedGraphModule)


def test_modules_are_replaced_by_those_of_the_documented_paths(script: ModuleType) -> None:
    assert isinstance(script.qat_model.conv, qat.ConvReLU2d)
    assert isinstance(script.qat_model.quant, qat.QuantStub)
    assert isinstance(script.qat_model.dequant, qat.DeQuantStub)
    assert isinstance(script.quantized_model.conv, quantized.ConvReLU2d)
    assert isinstance(script.quantized_model.quant, quantized.Quantize)
    assert isinstance(script.quantized_model.dequant, quantized.DeQuantize)


def test_fused_model_shares_what_it_does_not_replace_and_leaves_the_model_as_it_was(script: ModuleType) -> None:
    assert script.fused_model.head.weight is script.model.head.weight
    assert type(script.model.bn) is torch.nn.BatchNorm2d
    torch.testing.assert_close(script.fused_model(script.batch), script.model(script.batch), rtol=1e-4, atol=1e-5)


def test_module_name_entry_of_the_script_gives_the_head_its_own_qconfig(script: ModuleType) -> None:
    assert script.qat_model.conv.activation_post_process is not None
    assert script.qat_model.head.activation_post_process is None


def test_converted_model_equals_validation_and_program(
    script: ModuleType, assert_one_arithmetic: Callable[..., QuantizedGraphModule]
) -> None:
    converted = assert_one_arithmetic(script.qat_model, script.batch)

    assert torch.equal(converted(script.batch), script.quantized_model(script.batch))
    error = (converted(script.batch) - script.model(script.batch)).abs().mean()
    assert error < 0.05 * script.model(script.batch).abs().mean()


def test_prepare_fuses_even_what_is_fused_already(script: ModuleType) -> None:
    from horizon_plugin_pytorch import qconfig
    from horizon_plugin_pytorch.quantization import prepare_qat_fx

    again = prepare_qat_fx(script.fused_model, {"": qconfig.default_qat_8bit_fake_quant_qconfig})

    assert [str(node) for node in again.graph.nodes] == [str(node) for node in script.qat_model.graph.nodes]
    assert again.state_dict().keys() >= script.qat_model.state_dict().keys()
