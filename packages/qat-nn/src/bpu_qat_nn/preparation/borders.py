"""Stubs that are inserted where quantized tensors reach what stays in float, and integers of the CPU the reverse."""

from __future__ import annotations

from collections.abc import Container

from torch import nn

from bpu_fx_fusion import GraphModuleWithAttr
from bpu_qconfig import default_qat_8bit_weight_16bit_act_fake_quant_qconfig

from ..detection import REAL_READERS
from ..detection.pillars import PillarMap
from ..flow import Kind, kinds_of, place_of, tensor_inputs
from ..ops.stubs import DeQuantStub, QuantStub

__all__ = ["add_stub", "dequantize_inputs", "separate_real_readers"]


def separate_real_readers(gm: GraphModuleWithAttr) -> None:
    """Put stubs around what computes on real values by its nature, such as post-processing, in place.

    Given:  `post = self.post(conv)`; `map = self.map(pillars, places)` with real places
    Result: `post_input_dequant = self.post_input_dequant(conv);  post = self.post(post_input_dequant)`;
    `map_places_quant = self.map_places_quant(places);  map = self.map(pillars, map_places_quant)`
    """
    modules = dict(gm.named_modules(remove_duplicate=False))
    readers = {
        place_of(node, modules)
        for node in gm.graph.nodes
        if (type(modules[str(node.target)]) if node.op == "call_module" else node.target) in REAL_READERS
    }
    dequantize_inputs(gm, readers)
    _quantize_places(gm)
    gm.recompile()


def _quantize_places(gm: GraphModuleWithAttr) -> None:
    """Put a QuantStub of scale 1 and 16 bits behind the places by which quantized pillars become a map."""
    modules, kinds = dict(gm.named_modules(remove_duplicate=False)), kinds_of(gm)
    for node in list(gm.graph.nodes):
        if node.op != "call_module" or type(modules[str(node.target)]) is not PillarMap:
            continue
        pillars, places = node.args[:2]
        if kinds[pillars] is Kind.QUANTIZED and kinds[places] is not Kind.QUANTIZED:
            stub = QuantStub(scale=1.0, qconfig=default_qat_8bit_weight_16bit_act_fake_quant_qconfig)
            path = add_stub(gm, f"{node.target}_places_quant", stub)
            with gm.graph.inserting_before(node):
                node.replace_input_with(places, gm.graph.call_module(path, (places,)))


def dequantize_inputs(gm: GraphModuleWithAttr, places: Container[str]) -> None:
    """Put a DeQuantStub before each quantized input of the places, in place.

    Args:
        gm: the fused model.
        places: names as of ``place_of``.
    """
    modules, kinds = dict(gm.named_modules(remove_duplicate=False)), kinds_of(gm, places)
    for node in list(gm.graph.nodes):
        place = place_of(node, modules)
        if place not in places:
            continue
        for source in dict.fromkeys(each for each in tensor_inputs(node, kinds) if kinds[each] is Kind.QUANTIZED):
            path = add_stub(gm, f"{place}_input_dequant", DeQuantStub())
            with gm.graph.inserting_before(node):
                node.replace_input_with(source, gm.graph.call_module(path, (source,)))


def add_stub(gm: GraphModuleWithAttr, name: str, stub: nn.Module) -> str:
    """Add a stub to the root under a name that is free, and return it."""
    wanted = path = name.replace(".", "_")
    count = 0
    while hasattr(gm, path):
        count += 1
        path = f"{wanted}_{count}"
    stub.train(gm.training)
    gm.add_module(path, stub)
    return path
