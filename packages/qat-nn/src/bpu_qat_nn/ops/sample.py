"""Sampling at positions that are data: grid_sample and RoI align; positions are integers in 256ths of a pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bpu_fx_fusion import GridSample, MultiScaleRoIAlign, RoIAlign, has_image_numbers, roi_align
from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.march import MarchRow
from bpu_kernels.ops import sample
from bpu_kernels.ops.concat import Concat

from ..derived import settings_of
from ..errors import InputError
from ..op import Operator, OpRow, Output, type_problems
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..quantized_module import QuantizedModule
from .rescale import rescale

__all__ = ["ROWS"]


def scaled(factor: float, largest: float = 0.0) -> tuple[int, int]:
    """Return (integer, shift) whose ratio is nearest to a factor, of 15 bits; ``largest`` fits into 30 bits with it."""
    shift = max(
        (s for s in range(40) if abs(factor) * 2**s < 2**15 - 1 and largest * 2**s < 2**30),
        default=0,
    )
    return round(factor * 2**shift), shift


class GridSampleOperator(Operator):
    """``F.grid_sample``; blends do not leave the range, so the scale stays."""

    own_scale: ClassVar[bool] = False
    axes: ClassVar[int | None] = 4
    config: ClassVar[tuple[str, ...]] = ("mode", "padding_mode", "align_corners")
    options: ClassVar[frozenset[str]] = frozenset({"grid"})
    mode: str
    padding_mode: str
    align_corners: bool

    def real(self, *inputs: Tensor) -> Tensor:
        """Sample."""
        return F.grid_sample(inputs[0], inputs[1], self.mode, self.padding_mode, self.align_corners)

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Bring the grid to positions (41) and blend."""
        x, grid = inputs
        sizes = tuple(int(n) for n in x.shape[2:])
        kernel = self.derived.get([grid], lambda: self._kernel(sizes, float(grid.scale)), "grid", sizes)
        return x.invoke(kernel, self.row, x, grid, scale=out.scale, dtype=out.dtype)

    def _kernel(self, sizes: tuple[int, ...], scale: float) -> sample.GridSample:
        middles = [sample.PIXEL * (n - 1) // 2 for n in sizes]
        spans = [scale * sample.PIXEL * (n - self.align_corners) / 2 for n in sizes]
        along = [scaled(span, middle + 1) for span, middle in zip(spans, middles, strict=True)]
        return sample.GridSample(
            factor=tuple(factor for factor, _ in along),
            offset=tuple((middle << s) + ((1 << s) >> 1) for middle, (_, s) in zip(middles, along, strict=True)),
            shift=tuple(shift for _, shift in along),
            mode=self.mode,
            padding=self.padding_mode,
        )

    def extra_repr(self) -> str:
        """Mode and padding."""
        return f"mode={self.mode!r}, padding_mode={self.padding_mode!r}, align_corners={self.align_corners}"


class QuantizedGridSample(GridSampleOperator, QuantizedModule):
    """Samples of integers."""

    def forward(self, x: QTensor, grid: QTensor) -> QTensor:  # type: ignore[override]
        """Sample."""
        return super().forward(x, grid)


class QATGridSample(GridSampleOperator, QATModule):
    """Samples under quantization-aware training."""

    quantized = QuantizedGridSample

    def forward(self, x: QTensor, grid: QTensor) -> QTensor:  # type: ignore[override]
        """Sample."""
        return super().forward(x, grid)

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """An int8 map and a grid of 8 or 16 bits; bilinear or nearest, zeros or border."""
        found = ["sampling by a grid"] if "grid_sample" in row.refused_kernels else []
        if module.mode not in ("bilinear", "nearest"):
            found.append(f"mode {module.mode!r} (allowed: 'bilinear', 'nearest')")
        if module.padding_mode not in ("zeros", "border"):
            found.append(f"padding_mode {module.padding_mode!r} (allowed: 'zeros', 'border')")
        return [*found, *type_problems(inputs[:1], [qint8]), *type_problems(inputs[1:], row.activations)]


class RoiAlignOperator(Operator):
    """Boxes pooled from the levels of a pyramid; levels of smaller scales are brought to the largest first.

    That scale stays: averages have a smaller range, but what they are of must not saturate.
    """

    own_scale: ClassVar[bool] = False
    float_module: MultiScaleRoIAlign
    options: ClassVar[frozenset[str]] = frozenset({"image_shapes"})

    def configure(self, source: Any) -> None:
        """Keep the float module, or what the QAT module kept."""
        self.float_module = getattr(source, "float_module", source)

    def flat(self, x: Any, boxes: Any) -> tuple[list[QTensor], list[QTensor]]:
        """Return the maps of the levels and the boxes of the images.

        Raises:
            InputError: boxes with the number of their image, of a batch of several.
        """
        maps = self.float_module.levels(x)
        if not has_image_numbers(boxes):
            return maps, list(boxes) if isinstance(boxes, list | tuple) else [boxes]
        if maps[0].shape[0] != 1:
            raise InputError(
                f"boxes in one tensor, the number of the image first, are pooled from one image; this batch has "
                f"{maps[0].shape[0]}. Give a list with a tensor of four coordinates per image"
            )
        return maps, [boxes[:, 1:]]

    def pooled(self, maps: Sequence[Any], boxes: Sequence[Any], strides: Sequence[float]) -> QTensor:
        """Pool the boxes of each image, and join them along the batch."""
        scales = [each.scale for each in maps]
        out = Output(self.derived.get(maps, lambda: torch.stack(scales).amax(0), "largest"), maps[0].dtype)
        levels: list[Any] = [rescale(self, each, out) for each in maps]
        found = []
        for image, each in enumerate(boxes):
            given = [level if len(boxes) == 1 else level[image : image + 1] for level in levels]
            build = partial(self._kernel, strides, each.scale)
            kernel = self.derived.get([each], build, "roi", strides, settings_of(self.float_module))
            found.append(each.invoke(kernel, self.row, *given, each, scale=out.scale, dtype=out.dtype))
        if len(found) == 1:
            result: QTensor = found[0]
            return result
        joined: QTensor = found[0].invoke(Concat(axis=0), self.row, *found, scale=out.scale, dtype=out.dtype)
        return joined

    def _kernel(self, strides: Sequence[float], of_boxes: Tensor) -> sample.RoiAlign:
        scale = float(of_boxes)
        along = [scaled(scale * sample.PIXEL / stride) for stride in strides]
        sides = self.float_module.thresholds(strides)
        return sample.RoiAlign(
            size=self.float_module.output_size,
            samples=self.float_module.sampling_ratio,
            factor=tuple(factor for factor, _ in along),
            shift=tuple(shift for _, shift in along),
            areas=tuple(min(math.ceil((side / scale) ** 2), 2**31 - 1) for side in sides),
            aligned=self.float_module.aligned,
        )

    def extra_repr(self) -> str:
        """Bins and samples."""
        return self.float_module.extra_repr()


class QuantizedRoiAlign(RoiAlignOperator, QuantizedModule):
    """RoI align of integers."""

    def forward(self, x: Any, boxes: Any, image_shapes: Any = None) -> QTensor:  # type: ignore[override]
        """Pool."""
        maps, found = self.flat(x, boxes)
        strides = self.float_module.strides_of([each.shape for each in maps], image_shapes)
        return self.pooled(maps, found, strides)


class QATRoiAlign(RoiAlignOperator, QATModule):
    """RoI align under quantization-aware training."""

    quantized = QuantizedRoiAlign

    def forward(self, x: Any, boxes: Any, image_shapes: Any = None) -> QTensor:  # type: ignore[override]
        """Pool."""
        maps, found = self.flat(x, boxes)
        module, levels = self.float_module, len(maps)
        strides = module.strides_of([each.shape for each in maps], image_shapes)

        def real(*values: Tensor) -> Tensor:
            options: dict[str, Any] = {"aligned": module.aligned, "thresholds": module.thresholds(strides)}
            return roi_align(
                values[:levels], values[levels:], strides, module.output_size, module.sampling_ratio, **options
            )

        def steps(out: Output, *values: QTensor) -> QTensor:
            return self.pooled(values[:levels], values[levels:], strides)

        return self.compute(real, steps, (*maps, *found))

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """int8, but for the boxes; up to five levels."""
        found = ["RoI align"] if "roi_align" in row.refused_kernels else []
        return [*found, *type_problems(inputs[:1], [qint8]), *type_problems(inputs[1:], row.activations)]


_OWN = "The rule is ours, exact in all forms; the vendor's is not known, so no HBIR is written."

ROWS = (
    OpRow(
        name="grid_sample",
        floats=(GridSample,),
        qat=QATGridSample,
        kernels=("grid_sample",),
        note=f"{_OWN} The grid goes through a QuantStub, best of 16 bits; weights of the blend have 8 bits.",
    ),
    OpRow(
        name="RoIAlign",
        floats=(RoIAlign, MultiScaleRoIAlign),
        qat=QATRoiAlign,
        kernels=("roi_align", "rescale", "slice", "concat"),
        note=f"{_OWN} Also torchvision's modules of these names, and its function roi_align. The output has the "
        "largest scale of the levels. "
        "Boxes, one tensor per image (of a batch of one also n x 5, the image's number first), "
        "go through a QuantStub of their own, best of 16 bits and with a power of two as scale, such as 1/8; behind "
        "proposals on the CPU it begins a segment.",
    ),
)
