"""The models of the zoo: names, how each is built with random weights, and what it is fed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

__all__ = ["ZOO", "ZooModel"]


@dataclass(frozen=True, kw_only=True)
class ZooModel:
    """A model with random weights."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (2, 3, 64, 64)
    """Of its input."""


class BackboneAndHead(nn.Module):
    """What a torchvision detector computes on the accelerator: features and the raw predictions of its heads."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.head = detector.rpn.head if hasattr(detector, "rpn") else detector.head

    def forward(self, x: Tensor) -> Any:
        """Return the predictions for every level of the features."""
        return self.head(list(self.backbone(x).values()))


def _torchvision(name: str, size: int = 0) -> ZooModel:
    size = size or _SIZES.get(name, 64)

    def make() -> nn.Module:
        from torchvision import models

        options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        options |= {"image_size": size} if name.startswith("vit_") else {}
        model: nn.Module = models.get_model(name, weights=None, **options)
        return model

    return ZooModel(make=make, shape=(2, 3, size, size))


def _segmentation(name: str) -> ZooModel:
    def make() -> nn.Module:
        from torchvision import models

        model: nn.Module = models.get_model(name, weights=None, weights_backbone=None, num_classes=7)
        return model

    return ZooModel(make=make)


def _detector(name: str) -> ZooModel:
    def make() -> nn.Module:
        from torchvision import models

        return BackboneAndHead(models.get_model(name, weights=None, weights_backbone=None, num_classes=7))

    size = _SIZES.get(name, 96)
    return ZooModel(make=make, shape=(2, 3, size, size))


def _video(name: str, frames: int = 8) -> ZooModel:
    size = _SIZES.get(name, 64)

    def make() -> nn.Module:
        from torchvision import models

        model: nn.Module = models.get_model(name, weights=None)
        return model

    return ZooModel(make=make, shape=(2, 3, frames, size, size))


def _timm(name: str, *, resizable: bool = False) -> ZooModel:
    size = _SIZES.get(name, 64)

    def make() -> nn.Module:
        import timm

        model: nn.Module = timm.create_model(name, pretrained=False, **({"img_size": size} if resizable else {}))
        return model

    return ZooModel(make=make, shape=(2, 3, size, size))


_CLASSIFIERS = """
    alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet mnasnet0_5 mnasnet1_0
    mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet34 resnet50
    resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 squeezenet1_0 squeezenet1_1 swin_t swin_v2_t vgg11
    vgg11_bn vgg16_bn vit_b_16 wide_resnet50_2
"""

_SEGMENTERS = """
    deeplabv3_mobilenet_v3_large deeplabv3_resnet50 fcn_resnet50 lraspp_mobilenet_v3_large
"""

_DETECTORS = """
    fasterrcnn_mobilenet_v3_large_fpn fasterrcnn_resnet50_fpn fcos_resnet50_fpn keypointrcnn_resnet50_fpn
    maskrcnn_resnet50_fpn retinanet_resnet50_fpn ssd300_vgg16 ssdlite320_mobilenet_v3_large
"""

_VIDEOS = """
    mc3_18 r2plus1d_18 r3d_18 s3d
"""

_TIMM = """
    cs3darknet_s cspdarknet53 cspresnet50 darknet53 densenet121 dla34 dm_nfnet_f0 dpn68 ecaresnet26t
    edgenext_xx_small efficientnet_b0 efficientnet_lite0 efficientnetv2_rw_t ese_vovnet19b_dw fastvit_t8
    fbnetc_100 fbnetv3_b gernet_s ghostnet_100 ghostnetv2_100 halonet26t hardcorenas_a hgnet_tiny hgnetv2_b0
    hrnet_w18_small inception_next_tiny inception_resnet_v2 inception_v3 inception_v4 lambda_resnet26t lcnet_050
    mixnet_s mnasnet_100 mobilenetv2_100 mobilenetv3_large_100 mobilenetv3_small_100 mobilenetv4_conv_small
    mobileone_s0 nf_regnet_b0 nf_resnet26 pnasnet5large regnetx_002 regnety_002 regnetv_040 repghostnet_050
    repvgg_a0 repvit_m0_9 res2net50_26w_4s resnest14d resnet10t resnet18 resnet26d resnet50_gn resnetrs50
    resnetv2_50 resnext26ts rexnet_100 rexnetr_100 rdnet_tiny selecsls42 semnasnet_100 seresnet18
    sebotnet33ts_256 skresnet18 spnasnet_100 starnet_s1 tf_efficientnet_b0 tf_efficientnet_lite0 tf_mixnet_s
    tinynet_e tresnet_m vgg11 vovnet39a xception41 convmixer_768_32 convnext_atto convnextv2_atto mambaout_femto
    poolformer_s12 efficientformer_l1 tf_efficientnetv2_b0 bat_resnext26ts
    davit_tiny efficientvit_b0 efficientvit_l1 fastvit_sa12 pvt_v2_b0 tiny_vit_5m_224
"""

_TIMM_SIZED = """
    beit_base_patch16_224 cait_xxs24_224 coat_lite_tiny coatnet_pico_rw_224 convit_tiny crossvit_tiny_240
    deit_tiny_patch16_224 eva02_tiny_patch14_224 gcvit_xxtiny levit_128s maxvit_rmlp_pico_rw_256 mixer_s32_224
    mobilevit_xxs mobilevitv2_050 mvitv2_tiny nest_tiny pit_ti_224 resmlp_12_224
    swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 tnt_s_legacy_patch16_224
    twins_pcpvt_small vit_tiny_patch16_224 visformer_tiny volo_d1_224 xcit_nano_12_p16_224
    efficientvit_m0 efficientformerv2_s0 sequencer2d_s hiera_tiny_224
    gmlp_ti16_224 gmixer_24_224 repvit_m1
"""

_SIZES = {
    **dict.fromkeys(("alexnet", "vgg11", "vgg11_bn", "vgg16_bn", "s3d"), 224),
    **dict.fromkeys(("inception_resnet_v2", "inception_v4"), 128),
    **dict.fromkeys(("efficientformer_l1", "tiny_vit_5m_224"), 224),
    **dict.fromkeys(("bat_resnext26ts", "halonet26t", "sebotnet33ts_256"), 256),
    "crossvit_tiny_240": 120,
    "inception_v3": 128,
    "ssd300_vgg16": 300,
}
"""Height and width of the models that do not take smaller inputs."""

ZOO: dict[str, ZooModel] = {
    **{f"torchvision/{name}": _torchvision(name) for name in _CLASSIFIERS.split()},
    "torchvision/inception_v3": _torchvision("inception_v3"),
    **{f"torchvision/{name}": _segmentation(name) for name in _SEGMENTERS.split()},
    **{f"torchvision/{name}": _detector(name) for name in _DETECTORS.split()},
    **{f"torchvision/{name}": _video(name, 16 if name == "s3d" else 8) for name in _VIDEOS.split()},
    **{f"timm/{name}": _timm(name) for name in _TIMM.split()},
    **{f"timm/{name}": _timm(name, resizable=True) for name in _TIMM_SIZED.split()},
}
"""Name -> model."""
