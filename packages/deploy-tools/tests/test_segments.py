"""Segments: a model cut at its inner QuantStubs gives the whole model's integers, part by part."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bpu_kernels
from bpu_deploy_tools import LoweringError, Manifest, ManifestError, Segments, lower, split_segments
from bpu_deploy_tools.segments.stages import observed_values
from bpu_fx_fusion import MultiScaleRoIAlign, wrap
from bpu_kernels.march import March, march_row
from bpu_qat_nn import DeQuantStub, QTensor, QuantizedGraphModule, QuantStub, convert_fx
from bpu_qat_nn.ops.stubs import QuantizedQuantStub
from bpu_qat_nn.testing import NETS, calibrate, differing, prepared, real_inputs, train_steps
from bpu_qconfig import (
    default_qat_8bit_weight_16bit_act_fake_quant_qconfig,
    default_qat_out_8bit_fake_quant_qconfig,
    march_scope,
)

MAP = (2, 3, 8, 8)


def layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())


class TwoStages(nn.Module):
    """The guide's: a QuantStub behind the backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.cut, self.dequant = QuantStub(), QuantStub(scale=None), DeQuantStub()
        self.backbone, self.head = layer(3, 8), nn.Sequential(layer(8, 8), nn.Conv2d(8, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(self.head(self.cut(self.backbone(self.quant(x)))))
        return y


class Pyramid(nn.Module):
    """Two cuts, two tensors across the first through one shared stub, results from every stage."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.cut, self.last, self.dequant = QuantStub(), QuantStub(), QuantStub(), DeQuantStub()
        self.fine, self.coarse, self.lateral = layer(3, 8), layer(8, 8, 2), nn.Conv2d(8, 8, 1)
        self.head, self.tail = layer(8, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        fine = self.fine(self.quant(x))
        coarse = self.coarse(fine)
        fine, coarse_again = self.cut(fine), self.cut(coarse)
        merged = self.lateral(fine) + nn.functional.interpolate(coarse_again, scale_factor=2)
        head = self.head(merged)
        scores = [self.dequant(self.tail(self.last(head))), self.dequant(coarse)]
        return {"scores": scores, "head": self.dequant(head)}


class AroundTheCut(nn.Module):
    """A residual goes around the cut without a stub, and a second image is needed in the second stage only."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.other, self.cut, self.dequant = QuantStub(), QuantStub(), QuantStub(), DeQuantStub()
        self.first, self.second, self.side = layer(3, 8), nn.Conv2d(8, 8, 3, padding=1), layer(3, 8)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a = self.first(self.quant(x))
        side = self.side(self.other(y))
        z: Tensor = self.dequant(self.second(self.cut(a)) + a + side)
        return z


@wrap()
def best_positions(scores: Tensor, count: int) -> Tensor:
    """Return a map of ones at the best positions; no operator of the BPU."""
    best = scores.flatten(1).topk(count).indices
    return torch.zeros_like(scores.flatten(1)).scatter(1, best, 1.0).reshape(scores.shape)


class TwoStageDetector(nn.Module):
    """Proposals are made on the CPU; the second stage reads them and the features."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.features, self.proposals = QuantStub(), QuantStub(), QuantStub()
        self.backbone, self.rpn, self.roi = layer(3, 8), nn.Conv2d(8, 1, 1), nn.Conv2d(8, 4, 1)
        self.scores, self.boxes = DeQuantStub(), DeQuantStub()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(self.quant(x))
        found = best_positions(torch.sigmoid(self.scores(self.rpn(features))), 5)
        picked = self.features(features) * self.proposals(found.expand(-1, 8, -1, -1))
        return self.boxes(self.roi(picked)), found


@wrap()
def proposals(scores: Tensor, count: int, stride: int) -> Tensor:
    """Return a box (n, 4) around each of the best positions of the one image."""
    best = scores[0, 0].flatten().topk(count).indices
    y, x = best // scores.shape[3], best % scores.shape[3]
    center = torch.stack([x, y], 1).to(scores.dtype) * stride
    return torch.cat([center - 3.0, center + 4.5], 1).clamp(0.0, 20.0)


class RegionDetector(nn.Module):
    """A region proposal network, proposals on the CPU, RoI align and a head on their regions of a pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.regions = QuantStub(), QuantStub()
        self.backbone, self.down, self.rpn = layer(3, 8), nn.MaxPool2d(2), nn.Conv2d(8, 1, 1)
        self.pool = MultiScaleRoIAlign(None, 3, 2, canonical_scale=6, canonical_level=0, strides=(1, 2))
        self.head, self.classes = layer(8, 6), nn.Linear(54, 5)
        self.scores, self.logits = DeQuantStub(), DeQuantStub()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.backbone(self.quant(x))
        boxes = proposals(self.scores(self.rpn(fine)), 7, 1)
        pooled = self.pool([fine, self.down(fine)], [self.regions(boxes)])
        return self.logits(self.classes(self.head(pooled).flatten(1))), boxes


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...], list[str]]] = {
    "two stages": (TwoStages, (MAP,), ["stage1", "stage2"]),
    "pyramid": (Pyramid, (MAP,), ["stage1", "stage2", "stage3"]),
    "around the cut": (AroundTheCut, (MAP, MAP), ["stage1", "stage2"]),
    "detector": (TwoStageDetector, (MAP,), ["stage1", "cpu1", "stage2"]),
    "regions": (RegionDetector, ((1, 3, 10, 12),), ["stage1", "cpu1", "stage2"]),
}
CASES = [
    pytest.param(name, march, id=f"{name}-{march}")
    for name in MODELS
    for march in March
    if name != "regions" or "roi_align" not in march_row(march).refused_kernels
]


def trained(name: str, march: March | str = March.BAYES) -> tuple[QuantizedGraphModule, tuple[Tensor, ...]]:
    """Return a converted model that was calibrated and trained as a whole, and inputs for it."""
    torch.manual_seed(0)
    make, shapes, _ = MODELS[name]
    entries = {
        "detector": [("rpn", default_qat_out_8bit_fake_quant_qconfig)],
        "regions": [
            ("rpn", default_qat_out_8bit_fake_quant_qconfig),
            ("regions", default_qat_8bit_weight_16bit_act_fake_quant_qconfig),
        ],
    }
    model = prepared(make(), march, module_name=entries.get(name, []))
    calibrate(model, shapes)
    train_steps(model, shapes)
    with march_scope(march):
        return convert_fx(model), real_inputs(shapes, seed=5)


@pytest.mark.parametrize(("name", "march"), CASES)
def test_parts_give_the_integers_of_the_whole(name: str, march: March) -> None:
    whole, inputs = trained(name, march)
    segments = split_segments(whole, inputs)

    expected = whole(*inputs)
    assert [part.name for part in segments] == MODELS[name][2]
    assert differing(segments(*inputs), expected) == 0
    assert differing(segments.run(*inputs), expected) == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NETS)
def test_net_cut_at_random_places_gives_the_integers_of_the_whole(name: str, seed: int) -> None:
    """Stubs behind one to three nodes, for some or all of their readers, so that tensors go around the cuts too."""
    case, chance = NETS[name], random.Random(f"{name} {seed}")
    march = chance.choice(case.marches)
    observed = prepared(case.model(), march)
    calibrate(observed, case.shapes)
    whole, inputs = convert_fx(observed), real_inputs(case.shapes, 3)
    expected = whole(*inputs)
    values = observed_values(whole, inputs)
    known = [node for node, value in values.items() if isinstance(value, QTensor) and value.per_channel_axis < 0]
    for index, node in enumerate(chance.sample(known, chance.randint(1, 3))):
        whole.add_module(f"cut{index}", QuantizedQuantStub.of(values[node].scale, values[node].dtype))
        users = list(node.users)
        with whole.graph.inserting_after(node):
            stub = whole.graph.call_module(f"cut{index}", (node,))
        for user in chance.choice([users, users[:1]]):
            user.replace_input_with(node, stub)
    whole.recompile()

    with march_scope(march):
        segments = split_segments(whole, inputs)
    assert differing(segments(*inputs), expected) == 0
    assert differing(segments.run(*inputs), expected) == 0


def test_modules_chain_by_name_and_hand_over_integers() -> None:
    whole, (x,) = trained("two stages")
    first, second = split_segments(whole, x)

    passed = first.module(x)
    (features,) = passed.values()
    assert isinstance(features, QTensor)
    assert features.holds_steps
    assert torch.equal(second.module(**passed)["dequant"], whole(x))


def test_second_stage_takes_real_values_of_the_border_alike() -> None:
    """The guide: "the example_input for tracing Stage2 still needs to be in floating-point format"."""
    whole, (x,) = trained("two stages")
    first, second = split_segments(whole, x)

    real = {name: value.dequantize() for name, value in first.module(x).items()}
    assert torch.equal(second.module(**real)["dequant"], whole(x))
    assert lower(second.module, tuple(real.values())).scales == second.program.scales  # type: ignore[union-attr]


def test_border_of_two_stages_has_one_name_type_and_scale() -> None:
    whole, (x,) = trained("two stages")
    first, second = split_segments(whole, x)

    (given,), (gives,) = second.inputs, first.outputs
    assert (given.name, given.dtype, given.scale) == (gives.name, "qint8", gives.scale)
    assert given.scale == tuple(whole.get_submodule("backbone.0").scale.tolist())  # type: ignore[operator]
    assert given.shape == gives.shape == (2, 8, 8, 8)


def test_stub_whose_recorded_scale_is_stale_takes_the_one_that_crosses() -> None:
    """A learned scale changes after the last forward of training; the stub at the cut has not seen that."""
    whole, (x,) = trained("two stages")
    whole.get_submodule("backbone.0").scale.mul_(1.5)  # type: ignore[operator]
    segments = split_segments(whole, x)

    assert torch.equal(segments.run(x), whole(x))
    cut: Any = segments["stage2"].module.get_submodule("cut")
    assert torch.equal(cut.scale, whole.get_submodule("backbone.0").scale)  # type: ignore[arg-type]
    assert not torch.equal(whole.get_submodule("cut").scale, cut.scale)  # type: ignore[arg-type]


def test_stages_hold_only_their_own_modules() -> None:
    whole, (x,) = trained("two stages")
    first, second = split_segments(whole, x)

    assert {name.split(".")[0] for name, _ in first.module.named_children()} == {"quant", "backbone"}
    assert {name.split(".")[0] for name, _ in second.module.named_children()} == {"cut", "head", "dequant"}


def test_what_only_a_later_stage_needs_is_computed_there() -> None:
    whole, inputs = trained("around the cut")
    first, second = split_segments(whole, inputs)

    assert [port.name for port in first.inputs] == ["x"]
    assert "y" in [port.name for port in second.inputs]
    assert len(first.outputs) == 1  # the residual and the cut tensor are one


def test_step_on_the_cpu_takes_and_gives_real_values() -> None:
    whole, (x,) = trained("detector")
    segments = split_segments(whole, x)
    entry = segments.manifest.segments[1]

    assert (entry.name, entry.runs_on) == ("cpu1", "cpu")
    assert {port.dtype for port in (*entry.inputs, *entry.outputs)} == {"float32"}
    assert {port.shape for port in entry.outputs} == {(2, 1, 8, 8), (2, 8, 8, 8)}
    (scores,) = (port for port in segments["stage1"].outputs if port.name == entry.inputs[0].name)
    assert scores.dtype == "qint32"  # high precision until the DeQuantStub
    assert segments["cpu1"].program is None


def test_manifest_survives_json() -> None:
    whole, (x,) = trained("pyramid")
    manifest = split_segments(whole, x).manifest

    assert Manifest.from_json(manifest.to_json()) == manifest
    assert str(manifest).startswith("stage1 (bpu)\n  in   x: qint8 (2, 3, 8, 8), scale ")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "march": "", "segments": [1]}'])
def test_text_that_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestError, match="expected a manifest"):
        Manifest.from_json(text)


def test_saved_programs_and_manifest_are_all_that_stages_need(tmp_path: Path) -> None:
    whole, (x,) = trained("two stages")
    segments = split_segments(whole, x)
    segments.save(tmp_path)

    manifest = Manifest.from_json((tmp_path / "manifest.json").read_text())
    first, second = (bpu_kernels.load(tmp_path / f"{entry.name}.bpu") for entry in manifest.segments)
    (name,) = (port.name for port in manifest.segments[1].inputs)
    integers = bpu_kernels.run(first, bpu_kernels.quantize_inputs(first, x.permute(0, 2, 3, 1).numpy()))
    result = bpu_kernels.run(second, {name: integers[name]})
    real = bpu_kernels.dequantize_outputs(second, result)["dequant"]
    assert torch.equal(torch.from_numpy(real).permute(0, 3, 1, 2), whole(x))


def test_model_without_a_cut_is_one_stage() -> None:
    class Plain(TwoStages):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.dequant(self.head(self.backbone(self.quant(x))))
            return y

    model = prepared(Plain(), March.BAYES)
    calibrate(model, (MAP,))
    segments: Segments = split_segments(convert_fx(model), real_inputs((MAP,), 0))

    assert [part.name for part in segments] == ["stage1"]


def test_stage_that_cannot_be_lowered_is_named() -> None:
    whole, (x,) = trained("two stages")
    for node in whole.graph.nodes:
        if node.target == "dequant":
            node.replace_all_uses_with(node.args[0])
            whole.graph.erase_node(node)
    (output,) = (node for node in whole.graph.nodes if node.op == "output")
    with whole.graph.inserting_before(output):
        picked = whole.graph.call_method("__getitem__", (output.args[0], (slice(None), slice(None), [0, 1], [1, 0])))
    output.args = (picked,)
    whole.recompile()

    with pytest.raises(LoweringError, match=r"stage2: .*more than one axis"):
        split_segments(whole, x)


def test_camera_input_of_the_whole_is_the_first_stage_s() -> None:
    from bpu_deploy_tools import insert_yuv_input

    whole, _ = trained("two stages")
    insert_yuv_input(whole)
    x = torch.zeros(1, 3, 8, 8)
    first, second = split_segments(whole, x, input_source="pyramid")

    assert first.program is not None
    assert second.program is not None
    assert [each.source for each in (*first.program.inputs, *second.program.inputs)] == ["pyramid", "ddr"]
