"""NETS: small nets of the shapes that people deploy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from bpu_kernels.march import March

from .classifiers import MLP, MobileNet, ResNet, SqueezeExcite, VideoNet
from .dense_nets import FPN, YOLO, UNet

__all__ = ["NETS", "NetCase"]


@dataclass(frozen=True, kw_only=True)
class NetCase:
    """A net with its input and the marches that take it."""

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...] = ((2, 3, 32, 32),)
    marches: tuple[March, ...] = tuple(March)
    high_precision: tuple[str, ...] = ()
    """Layers whose output keeps 32 bits."""

    def model(self, seed: int = 0) -> nn.Module:
        """Return the net after a few batches have passed, so that its statistics are not the initial ones."""
        torch.manual_seed(seed)
        net = self.make().train()
        with torch.no_grad():
            for _ in range(3):
                net(*(torch.randn(shape) for shape in self.shapes))
        return net.eval()


BAYES = (March.BAYES, March.BAYES_E)

NETS: dict[str, NetCase] = {
    "resnet": NetCase(make=ResNet, high_precision=("fc",)),
    "mobilenet": NetCase(make=MobileNet, high_precision=("fc",)),
    "unet": NetCase(make=UNet, high_precision=("out",)),
    "fpn": NetCase(make=FPN, high_precision=("scores", "boxes")),
    "yolo": NetCase(make=YOLO),
    "squeeze_excite": NetCase(make=SqueezeExcite),
    "mlp": NetCase(make=MLP, shapes=((8, 20),)),
    "conv3d": NetCase(make=VideoNet, shapes=((1, 3, 6, 12, 12),), marches=BAYES),
}
"""Name -> net."""
