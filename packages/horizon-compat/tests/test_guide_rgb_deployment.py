"""The guide's chapter "RGB888 Data Deployment": conversion in training, and on the board."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from horizon_plugin_pytorch import functional
from horizon_plugin_pytorch.qtensor import QTensor

BEFORE = """
opcode name target args kwargs
----------- ------- -------- ---------- --------
placeholder input_1 input () {}
call_module quant quant (input_1,) {}
call_module conv conv (quant,) {}
output output output (conv,) {}
"""

AFTER = """
opcode name target args kwargs
------------- ---------------- --------------------------------------------- ------------------- -----------------
placeholder input_1 input () {}
call_module quant quant (input_1,) {}
call_function centered_yuv2rgb <function centered_yuv2rgb at ADDRESS> (quant,) {'swing': 'full'}
call_module conv conv (centered_yuv2rgb,) {}
output output output (conv,) {}
"""


def rows(table: str) -> list[str]:
    """Lines with single spaces, without the address that a run prints and the rules whose length depends on it."""
    lines = [re.sub(r"0x[0-9a-f]+", "ADDRESS", " ".join(line.split())) for line in table.strip().splitlines()]
    return [line for line in lines if not line.startswith("---")]


def exact_rgb(yuv: torch.Tensor, swing: str) -> torch.Tensor:
    """RGB 0..255 of centered YUV, BT.601 as the standard states it: Kr = 0.299, Kb = 0.114; [N, 3, H, W], float64."""
    y, u, v = yuv.double().unbind(1)
    if swing == "studio":
        y, u, v = (y + 112) * 255 / 219, u * 255 / 224, v * 255 / 224
    else:
        y = y + 128
    red, blue = y + 1.402 * v, y + 1.772 * u
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return torch.stack([red, green, blue], 1)


def yuv_grid() -> torch.Tensor:
    """Centered YUV of every fifth value along each axis, and the two largest; [1, 3, 54 * 54, 54]."""
    values = torch.tensor([*range(-128, 128, 5), 126, 127], dtype=torch.float32)
    return torch.cartesian_prod(values, values, values).T.reshape(1, 3, -1, len(values))


def test_script_prints_the_tables_of_the_guide(
    run_script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    run_script("centered_yuv2rgb_insertion")

    before, after = capsys.readouterr().out.split("\nAfter centered_yuv2rgb\n")
    assert rows(before.removeprefix("Before centered_yuv2rgb")) == rows(BEFORE)
    assert rows(after) == rows(AFTER)


def test_edited_model_converts_yuv_within_one_step_of_the_exact_formula(
    run_script: Callable[[str], ModuleType],
) -> None:
    traced = run_script("centered_yuv2rgb_insertion").traced
    yuv = yuv_grid()

    rgb = functional.centered_yuv2rgb(traced.quant(yuv), swing="full")

    assert float(traced.quant.scale) == 1.0
    assert torch.equal(traced.quant(yuv).int_repr(), yuv.to(torch.int8))
    expected = (exact_rgb(yuv, "full") - 128).round().clamp(-128, 127)
    assert int((rgb.int_repr() - expected).abs().max()) <= 1
    assert float(rgb.scale) == 1 / 128


def test_edited_model_computes_its_convolution_of_the_converted_image(
    run_script: Callable[[str], ModuleType],
) -> None:
    traced = run_script("centered_yuv2rgb_insertion").traced
    yuv = torch.randint(-128, 128, (1, 3, 28, 28), generator=torch.Generator().manual_seed(1)).float()

    rgb = functional.centered_yuv2rgb(traced.quant(yuv), swing="full")

    assert torch.equal(traced(yuv).int_repr(), traced.conv(rgb).int_repr())


@pytest.mark.parametrize("march", ["bernoulli2", "bayes", "bayes-e"])
@pytest.mark.parametrize("swing", ["studio", "full"])
@pytest.mark.parametrize("name", ["centered_yuv2rgb", "centered_yuv2bgr"])
def test_normalization_and_scale_of_training_are_within_one_step(march: str, swing: str, name: str) -> None:
    from horizon_plugin_pytorch import set_march

    set_march(march)
    mean, std, q_scale = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 2.64 / 127
    yuv = yuv_grid()

    converted = getattr(functional, name)(QTensor(yuv.to(torch.int8), 1.0), swing, mean, std, q_scale)

    exact = exact_rgb(yuv, swing)
    exact = exact.flip(1) if name == "centered_yuv2bgr" else exact
    normalized = (exact - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    expected = (normalized / q_scale).round().clamp(-128, 127)
    assert int((converted.int_repr() - expected).abs().max()) <= 1


RANGES = {
    "studio": ((-112.0, 107.0), (-112.0, 112.0), (-112.0, 112.0)),
    "full": ((-128.0, 127.0), (-127.5, 127.5), (-127.5, 127.5)),
}
"""Of Y, U and V as the guide states them; full-swing chroma of pure colours is 127.5 before rounding."""


@pytest.mark.parametrize("swing", RANGES)
def test_rgb2centered_yuv_spans_the_stated_ranges(swing: str) -> None:
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 255.0])] * 3).T.reshape(1, 3, 2, 4)

    yuv = functional.rgb2centered_yuv(corners, swing=swing)

    for channel, (low, high) in zip(yuv.unbind(1), RANGES[swing], strict=True):
        assert float(channel.min()) == pytest.approx(low, abs=1e-4)
        assert float(channel.max()) == pytest.approx(high, abs=1e-4)


@pytest.mark.parametrize("swing", RANGES)
def test_rgb2centered_yuv_is_the_inverse_of_the_exact_formula(swing: str) -> None:
    rgb = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))

    back = exact_rgb(functional.rgb2centered_yuv(rgb, swing), swing)

    torch.testing.assert_close(back, rgb.double(), rtol=0, atol=1e-3)


def test_default_swing_is_studio() -> None:
    rgb = torch.rand(1, 3, 4, 4) * 255

    assert torch.equal(functional.rgb2centered_yuv(rgb), functional.rgb2centered_yuv(rgb, "studio"))
    assert torch.equal(functional.bgr2centered_yuv(rgb.flip(1)), functional.rgb2centered_yuv(rgb))


def test_real_tensor_is_refused_by_the_operator_for_deployment() -> None:
    with pytest.raises(NotImplementedError, match="behind the QuantStub of a converted model"):
        functional.centered_yuv2rgb(torch.zeros(1, 3, 2, 2))  # type: ignore[arg-type]
