"""``compare_weights``: every layer's weights in float, as they are after fusing, beside those that the board has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bpu_fx_fusion import GraphModuleWithAttr
from bpu_kernels.whole_file import expect_folder

from ..op import Operator
from ..ops.weighted import kept_batch_norm
from ..ops.weighted.layer import WeightedQAT, WeightedQuantized
from ..preparation.prepare import fused_model
from ..text_table import text_table, write_text
from .histograms import write_histograms
from .measures import SimilarityFunction, similarity_of

__all__ = ["ComparedWeights", "compare_weights"]


class ComparedWeights(dict[str, dict[str, Tensor]]):
    """Name of a weight -> its real values as "float" and "quantized"; prints as a table."""

    def __init__(self, weights: dict[str, dict[str, Tensor]], name: str, similarities: dict[str, float]) -> None:
        super().__init__(weights)
        self.measure = name
        self.similarities = similarities
        """Name of a weight -> similarity."""

    @property
    def distances(self) -> dict[str, float]:
        """Name of a weight -> largest distance between the two."""
        return {name: float((pair["float"] - pair["quantized"]).abs().max()) for name, pair in self.items()}

    def cells(self) -> list[tuple[str, str, str]]:
        """Return the rows of the table."""
        distances = self.distances
        return [(name, f"{self.similarities[name]:.6f}", f"{distances[name]:.6g}") for name in self]

    def __str__(self) -> str:
        return text_table(("Weight Name", f"Similarity ({self.measure})", "Atol"), self.cells())


def compare_weights(
    float_model: nn.Module,
    qat_quantized_model: nn.Module,
    similarity_func: str | SimilarityFunction = "Cosine",
    with_tensorboard: bool = False,
    tensorboard_dir: str | None = None,
    out_dir: str | None = None,
    *,
    example_inputs: Any = None,
) -> ComparedWeights:
    """Compare weights before and after quantization.

    BatchNorms are folded into both. A float model is fused for that, if the other one is of the FX flow; beside a model
    of the eager mode give the one that ``fuse_modules`` returned.

    Args:
        float_model: fused or not; it is not changed.
        qat_quantized_model: prepared or converted.
        similarity_func: as of ``featuremap_similarity``.
        with_tensorboard: write histograms for tensorboard, which has to be installed.
        tensorboard_dir: folder for these, "runs" if None.
        out_dir: folder for weight_comparison.txt; None writes nothing.
        example_inputs: needed where ``prepare_qat_fx`` needed them.
    """
    expect_folder(out_dir)
    measure = similarity_of(similarity_func)
    fused = float_model
    if isinstance(qat_quantized_model, GraphModuleWithAttr):
        fused = fused_model(float_model, example_inputs=example_inputs)
    layers = dict(fused.named_modules(remove_duplicate=False))
    found: dict[str, dict[str, Tensor]] = {}
    for path, module in qat_quantized_model.named_modules():
        if isinstance(module, (WeightedQAT, WeightedQuantized)) and path in layers:
            real = _float_weight(layers[path], module)
            if real is not None:
                found[f"{path}.weight"] = {"float": real, "quantized": _quantized_weight(module)}
    similarities = {name: measure.of(pair["float"], pair["quantized"]) for name, pair in found.items()}
    compared = ComparedWeights(found, measure.name, similarities)
    if with_tensorboard:
        write_histograms(
            {f"{name}/{form}": tensor for name, pair in found.items() for form, tensor in pair.items()},
            tensorboard_dir,
        )
    if out_dir is not None:
        write_text(Path(out_dir, "weight_comparison.txt"), compared)
    return compared


def _quantized_weight(layer: WeightedQAT | WeightedQuantized) -> Tensor:
    """Return the real values of the integers that the board multiplies."""
    weight = layer.integer_weight()
    steps = weight.steps.detach()
    return layer.restored((steps.double() * weight.scale.reshape(-1, *(1,) * (steps.dim() - 1))).float()).cpu()


def _float_weight(module: nn.Module, layer: WeightedQAT | WeightedQuantized) -> Tensor | None:
    """Return the weights of a float layer, its BatchNorm folded in; None if it is another module."""
    weight = getattr(getattr(module, "conv", module), "weight", None)
    if isinstance(module, Operator) or not isinstance(weight, Tensor) or weight.numel() != layer.weight.numel():
        return None
    canonical, bn = layer.canonical(weight.detach().float()), getattr(module, "bn", None)
    if bn is not None:
        canonical = kept_batch_norm.folded(bn, canonical, None)[0].detach()
    return layer.restored(canonical).cpu()
