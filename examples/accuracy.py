"""What the accuracy passes do to a pretrained model: EfficientNet-Lite0 in 8 bits against its own float answers.

Half of the photographs calibrate and feed the passes, the other half is for measuring; then the halves change places.
The error is that of the 1000 logits, root mean square, relative to the float logits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from imagenet import MEAN, STD, Deployed, photographs
from report import CONSOLE
from rich.table import Table
from torch import Tensor

import horizon_plugin_pytorch as horizon
from bpu_qat_nn.passes import correct_bias, equalize, reestimate_batch_norm, round_weights
from horizon_plugin_pytorch.qat_mode import QATMode, set_qat_mode
from horizon_plugin_pytorch.quantization import (
    FakeQuantState,
    convert_fx,
    get_default_qconfig,
    prepare_qat_fx,
    set_fake_quantize,
)
from horizon_plugin_pytorch.quantization.fx.graph_module import ObservedGraphModule

Pass = Callable[[ObservedGraphModule, Sequence[Tensor]], object]
WAYS: dict[str, tuple[tuple[Pass, ...], tuple[Pass, ...]]] = {
    "calibrated": ((), ()),
    "equalize": ((equalize,), ()),
    "correct_bias": ((), (correct_bias,)),
    "round_weights": ((), (round_weights,)),
    "round_weights, correct_bias": ((), (round_weights, correct_bias)),
    "equalize, round_weights, correct_bias": ((equalize,), (round_weights, correct_bias)),
    "reestimate_batch_norm": ((), (reestimate_batch_norm,)),
}
"""What runs before and after calibration."""


def prepared(kept: bool) -> ObservedGraphModule:
    """Return the model for calibration; BatchNorms are kept where a pass is about them."""
    set_qat_mode(QATMode.WithBN if kept else QATMode.FuseBN)
    # Few photographs: each batch of two moves the averaged ranges by a tenth, not by the default's hundredth.
    qconfig = get_default_qconfig(activation_qkwargs={"averaging_constant": 0.1})
    high_precision = horizon.quantization.qconfig.default_qat_out_8bit_fake_quant_qconfig
    return prepare_qat_fx(Deployed().eval(), {"": qconfig, "module_name": {"backbone._fc": high_precision}})


def answers(way: str, calibration: Sequence[Tensor], images: Tensor) -> Tensor:
    """Return the logits of the model after the passes of a way, on integers."""
    before, after = WAYS[way]
    model = prepared(reestimate_batch_norm in after)
    for run in before:
        run(model, calibration)
    model.eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    for batch in calibration:
        model(batch)
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    for run in after:
        run(model, calibration)
    with torch.no_grad():
        logits: Tensor = model(images)
        if not torch.equal(convert_fx(model)(images), logits):
            raise SystemExit(f"{way}: the integers differ between validation and the converted model")
    return logits


def main() -> None:
    """Measure all ways and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--march", default="bayes-e", help="bernoulli2 (RDK X3), bayes (RDK Ultra), bayes-e (RDK X5)")
    parser.add_argument("ways", nargs="*", help=f"of {', '.join(map(repr, WAYS))}; all if none is named")
    chosen = parser.parse_args()
    horizon.set_march(chosen.march)
    photos, labels = photographs()
    images = (torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float() - MEAN) / STD
    with torch.no_grad():
        reference = Deployed().eval()(images)

    table = Table("passes", "error of the logits", "same answer as float", "top-1", title="EfficientNet-Lite0, 8 bits")
    for way in chosen.ways or WAYS:
        logits = torch.empty_like(reference)
        for half in range(2):
            measured, others = slice(half, None, 2), slice(1 - half, None, 2)
            logits[measured] = answers(way, images[others].split(2), images[measured])
        wrong = float((logits - reference).square().mean().sqrt() / reference.square().mean().sqrt())
        same = float((logits.argmax(1) == reference.argmax(1)).float().mean())
        right = float((logits[: len(labels)].argmax(1) == torch.tensor(labels)).float().mean())
        table.add_row(way, f"{wrong:.2%}", f"{same:.0%}", f"{right:.0%}")
    CONSOLE.print(table)


if __name__ == "__main__":
    main()
