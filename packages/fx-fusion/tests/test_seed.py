"""The vendor's guide: its fusion example, its registration loops and its RetinaNet run as printed."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub

from bpu_fx_fusion import (
    FUSION_PATTERNS,
    ConvBNAddedReLUFusion,
    ConvBNAddReLUFusion,
    FloatFunctional,
    GraphModuleWithAttr,
    MatchAllNode,
    fuse_fx,
    register_fusion_pattern,
    register_leaf_module,
)
from bpu_fx_fusion import wrap as fx_wrap


@register_leaf_module
class QuantStub(nn.Module):
    """Stands for the stub of bpu_qat_nn, which may not be imported here."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class ModelForFusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quantx = QuantStub()
        self.quanty = QuantStub()
        self.conv = nn.Conv2d(3, 3, 3)
        self.bn = nn.BatchNorm2d(3)
        self.relu = nn.ReLU()
        self.dequant = DeQuantStub()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.quantx(x)
        y = self.quanty(y)
        x = self.conv(x)
        x = self.bn(x)
        x = x + y
        x = self.relu(x)
        result: Tensor = self.dequant(x)

        return result


PRINTED = """ModelForFusion(
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


def test_model_for_fusion_prints_as_in_the_guide() -> None:
    fused = fuse_fx(ModelForFusion())

    assert str(fused).startswith(PRINTED)
    assert [line.strip().split(";")[0] for line in fused.code.strip().splitlines()[1:]] == [
        "quantx = self.quantx(x)",
        "quanty = self.quanty(y)",
        "add_1 = self._generated_add_0(quantx, quanty)",
        "dequant = self.dequant(add_1)",
        "return dequant",
    ]


def test_model_for_fusion_computes_the_same(randomize: Callable[[nn.Module], nn.Module]) -> None:
    model = randomize(ModelForFusion()).eval()
    x, y = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 6, 6)

    torch.testing.assert_close(fuse_fx(model)(x, y), model(x, y), rtol=1e-5, atol=1e-5)


def register_fusion_patterns() -> None:
    """Register what the guide lists, in its own words."""
    convs = (
        nn.Conv2d,
        nn.ConvTranspose2d,
        nn.Conv3d,
        nn.Linear,
    )
    bns = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    adds = (
        nn.quantized.FloatFunctional.add,
        FloatFunctional.add,
        torch.add,
        operator.add,  # The '+' operator used in code
    )
    relus = (nn.ReLU, nn.ReLU6, nn.functional.relu, nn.functional.relu6)

    for conv in convs:
        for bn in bns:
            for add in adds:
                for relu in relus:
                    # Conv BN
                    register_fusion_pattern((bn, conv))(ConvBNAddReLUFusion)

                    # Conv ReLU
                    register_fusion_pattern((relu, conv))(ConvBNAddReLUFusion)

                    # Conv Add
                    register_fusion_pattern((add, conv, MatchAllNode))(
                        ConvBNAddReLUFusion
                    )  # Conv output as first input to add
                    register_fusion_pattern((add, MatchAllNode, conv))(
                        ConvBNAddedReLUFusion
                    )  # Conv output as second input to add

                    # Conv BN ReLU
                    register_fusion_pattern((relu, (bn, conv)))(ConvBNAddReLUFusion)

                    # Conv BN Add
                    register_fusion_pattern((add, (bn, conv), MatchAllNode))(ConvBNAddReLUFusion)
                    register_fusion_pattern((add, MatchAllNode, (bn, conv)))(ConvBNAddedReLUFusion)

                    # Conv Add ReLU
                    register_fusion_pattern((relu, (add, conv, MatchAllNode)))(ConvBNAddReLUFusion)
                    register_fusion_pattern((relu, (add, MatchAllNode, conv)))(ConvBNAddedReLUFusion)

                    # Conv BN Add ReLU
                    register_fusion_pattern((relu, (add, (bn, conv), MatchAllNode)))(ConvBNAddReLUFusion)
                    register_fusion_pattern((relu, (add, MatchAllNode, (bn, conv))))(ConvBNAddedReLUFusion)


def test_the_guides_registration_loops_add_nothing_to_the_defaults() -> None:
    before = dict(FUSION_PATTERNS)

    register_fusion_patterns()

    assert before == FUSION_PATTERNS


class Head(nn.Module):
    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.cls = nn.Conv2d(4, 2, 1)
        self.reg = nn.Conv2d(4, 4, 1)

    def forward(self, feats: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return [self.cls(feats[i]) for i in range(2)], [self.reg(feats[i]) for i in range(2)]


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.down = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        return [x, self.down(x)]


class Anchors(nn.Module):
    def forward(self, feats: list[Tensor]) -> list[Tensor]:
        return [torch.zeros(len(feat), feat.shape[2] * feat.shape[3], 4) for feat in feats]


class Targets(nn.Module):
    def forward(self, anchors: list[Tensor], gt_labels: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        count = sum(level.shape[1] for level in anchors)
        mask = torch.full((len(gt_labels), count, 1), float(gt_labels[0][0, -1] > 0))
        return anchors, {
            "cls_label": torch.ones(len(gt_labels), count, 2),
            "cls_label_mask": mask,
            "reg_label": torch.ones(len(gt_labels), count, 4),
            "reg_label_mask": mask,
        }


class Loss(nn.Module):
    def forward(self, pred: Tensor, target: Tensor, weight: Tensor, avg_factor: Tensor) -> Tensor:
        return ((pred - target).abs() * weight).sum() / avg_factor


class PostProcess(nn.Module):
    def forward(
        self, anchors: list[Tensor], cls_scores: list[Tensor], bbox_preds: list[Tensor], shapes: list[Tensor]
    ) -> Tensor:
        assert len(anchors) == len(cls_scores) == len(bbox_preds)
        return torch.stack([score.amax() * shapes[0].sum() for score in cls_scores])


class RetinaNet(nn.Module):
    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module | None = None,
        head: nn.Module | None = None,
        anchors: nn.Module | None = None,
        targets: nn.Module | None = None,
        post_process: nn.Module | None = None,
        loss_cls: nn.Module | None = None,
        loss_reg: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.neck: Any = neck
        self.head: Any = head
        self.anchors: Any = anchors
        self.targets: Any = targets
        self.post_process: Any = post_process
        self.loss_cls: Any = loss_cls
        self.loss_reg: Any = loss_reg

    def rearrange_head_out(self, inputs: list[Tensor], num: int) -> Tensor:
        outputs = []
        for t in inputs:
            outputs.append(t.permute(0, 2, 3, 1).reshape(t.shape[0], -1, num))
        return torch.cat(outputs, dim=1)

    def forward(self, data: dict[str, Any]) -> Any:
        feat = self.backbone(data["img"])
        feat = self.neck(feat) if self.neck else feat
        cls_scores, bbox_preds = self.head(feat)

        if self.post_process is None:
            return cls_scores, bbox_preds

        return self._post_process(data, feat, cls_scores, bbox_preds)

    @fx_wrap()
    def _post_process(
        self, data: dict[str, Any], feat: list[Tensor], cls_scores: Any, bbox_preds: Any
    ) -> dict[str, Any]:
        anchors = self.anchors(feat)

        if self.training:
            cls_scores = self.rearrange_head_out(cls_scores, self.head.num_classes)
            bbox_preds = self.rearrange_head_out(bbox_preds, 4)
            gt_labels = [
                torch.cat(
                    [data["gt_bboxes"][i], data["gt_classes"][i][:, None] + 1],
                    dim=-1,
                )
                for i in range(len(data["gt_classes"]))
            ]
            gt_labels = [gt_label.float() for gt_label in gt_labels]
            _, labels = self.targets(anchors, gt_labels)
            avg_factor = labels["reg_label_mask"].sum()
            if avg_factor == 0:
                avg_factor += 1
            cls_loss = self.loss_cls(
                pred=cls_scores.sigmoid(),
                target=labels["cls_label"],
                weight=labels["cls_label_mask"],
                avg_factor=avg_factor,
            )
            reg_loss = self.loss_reg(
                pred=bbox_preds,
                target=labels["reg_label"],
                weight=labels["reg_label_mask"],
                avg_factor=avg_factor,
            )
            return {
                "cls_loss": cls_loss,
                "reg_loss": reg_loss,
            }
        preds = self.post_process(
            anchors,
            cls_scores,
            bbox_preds,
            [torch.tensor(shape) for shape in data["resized_shape"]],
        )
        assert "pred_bboxes" not in data, "pred_bboxes has been in data.keys()"
        data["pred_bboxes"] = preds
        return data


@pytest.fixture
def retina_net(randomize: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return randomize(RetinaNet(Backbone(), None, Head(), Anchors(), Targets(), PostProcess(), Loss(), Loss()))


def batch() -> dict[str, Any]:
    return {
        "img": torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
        "gt_bboxes": [torch.rand(1, 4), torch.rand(1, 4)],
        "gt_classes": [torch.ones(1), torch.ones(1)],
        "resized_shape": [(3, 8, 8)],
    }


def test_retina_net_is_fused_and_its_post_process_is_one_node(retina_net: nn.Module) -> None:
    fused = fuse_fx(retina_net)

    assert type(fused.get_submodule("backbone.stem.0")).__name__ == "ConvReLU2d"
    assert [node.target for node in fused.graph.nodes if node.op == "call_method"] == ["_post_process"]


def test_retina_net_predicts_the_same(retina_net: nn.Module) -> None:
    retina_net.eval()
    fused = fuse_fx(retina_net)

    torch.testing.assert_close(fused(batch())["pred_bboxes"], retina_net(batch())["pred_bboxes"])


def test_retina_net_trains_through_the_branch_that_tracing_did_not_see(retina_net: nn.Module) -> None:
    fused = fuse_fx(retina_net.eval())
    fused.train()
    retina_net.train()
    retina_net.get_submodule("backbone.stem.1").eval()  # fusing folded the running statistics

    losses, expected = fused(batch()), retina_net(batch())

    torch.testing.assert_close(losses, expected)
    sum(losses.values()).backward()
    assert fused.get_parameter("head.cls.weight").grad is not None


def test_modules_called_in_a_wrapped_method_can_be_swapped(retina_net: nn.Module) -> None:
    class Zero(nn.Module):
        def forward(self, *args: object, **kwargs: object) -> Tensor:
            return torch.zeros(())

    fused = fuse_fx(retina_net)
    fused.loss_cls = Zero()

    assert fused(batch())["cls_loss"] == 0
    assert retina_net(batch())["cls_loss"] > 0
    assert isinstance(fused, GraphModuleWithAttr)
