"""``featuremap_similarity``: place by place, how far a model is from another, and where the distance is made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from bpu_kernels.whole_file import expect_folder

from ..passes.forward import evaluated
from ..text_table import text_table, write_text
from .counterparts import Pair, as_graph, fused_modules, pair_calls
from .devices import inputs_on, on_device
from .errors_in_scales import in_scales, largest_error, real_values, same_input_error, scale_of
from .measures import Similarity, SimilarityFunction, similarity_of
from .page import Chart, Section, Table, write_page
from .record import record

__all__ = ["FeaturemapSimilarity", "SimilarityRow", "featuremap_similarity"]

_HEADINGS = ("#", "name", "type", "similarity", "output scale", "max error", "error in scales", "same input")


class SimilarityRow(NamedTuple):
    """One place; by name, or by position in the order that is documented."""

    position: int
    """In the order of execution, from 0."""
    name: str
    """Path; ``(I)`` behind it: nn.Identity in one of the models, ``(I vs I)``: in both; ``(1)``: the second call."""
    type: str
    """Class in the second model."""
    similarity: float
    output_scale: float | None
    """Scale of the second model's result, the largest of several; None if it is real."""
    max_error: float
    """Largest distance between the results."""
    error_in_scales: float | None
    """The same in steps of the result's scale."""
    same_input_error_in_scales: float | None
    """What the operator adds itself: its distance from the first model's result if it reads the first model's inputs.
    None if its result is real, or if the inputs do not correspond."""


class FeaturemapSimilarity(list[SimilarityRow]):
    """The rows in order of execution; prints as a table in which ``<`` marks what is beyond the threshold."""

    def __init__(
        self, rows: Iterable[SimilarityRow], measure: Similarity, unpaired: tuple[tuple[str, str], ...]
    ) -> None:
        super().__init__(rows)
        self.measure = measure
        self.unpaired = unpaired
        """Places of the second model without a row, each with the reason."""

    @property
    def by_operator_error(self) -> FeaturemapSimilarity:
        """The same rows, those of the largest error on the same inputs first: the layer to look at is the first."""
        order = sorted(self, key=lambda row: _unknown_last(row.same_input_error_in_scales))
        return FeaturemapSimilarity(order, self.measure, self.unpaired)

    def is_bad(self, row: SimilarityRow) -> bool:
        """Whether a row's similarity is beyond the threshold."""
        return self.measure.is_bad(row.similarity)

    def cells(self) -> list[tuple[str, ...]]:
        """Return the rows as text."""
        return [_cells(row, "<" if self.is_bad(row) else "") for row in self]

    def __str__(self) -> str:
        headings = tuple(self.measure.name if each == "similarity" else each for each in _HEADINGS)
        left = [f"{path}: {reason}" for path, reason in self.unpaired]
        return "\n".join([text_table(headings, self.cells()), *(["", "without counterpart:", *left] if left else [])])


def _unknown_last(error: float | None) -> float:
    return math.inf if error is None else -error


def _cells(row: SimilarityRow, mark: str) -> tuple[str, ...]:
    numbers = [row.output_scale, row.max_error, row.error_in_scales, row.same_input_error_in_scales]
    return (str(row.position), row.name, row.type, f"{row.similarity:.6f}{mark}", *map(_number, numbers))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def featuremap_similarity(
    model1: nn.Module,
    model2: nn.Module,
    inputs: Any,
    similarity_func: str | SimilarityFunction = "Cosine",
    threshold: float | None = None,
    devices: torch.device | str | tuple[torch.device | str, ...] | None = None,
    out_dir: str | None = None,
) -> FeaturemapSimilarity:
    """Compare the results of two models at every place.

    A place is a module path. A fused module is compared with the last of its members, so a float model needs no fusing
    before; it is traced, if the other one was, so that functions have the names that they have there. Models of the
    eager mode are compared with the fused float model.

    Both models are evaluated, with fake quantization switched as it is, and are afterwards as they were.

    Args:
        model1: the reference: float, fused, prepared or converted.
        model2: the model in question, of any of these stages.
        inputs: a tensor, a tuple of what forward takes, or a dict of it by name.
        similarity_func: a name of SIMILARITIES ("Cosine", "MSE", "L1", "KL", "SQNR"), or a function of two tensors.
        threshold: beyond it a row is marked; None: the measure's own.
        devices: where the models run, one for both or one each; None: where they are.
        out_dir: folder for similarity.txt, ordered_op_error_similarity.txt and similarity.html; None writes nothing.

    Raises:
        bpu_qat_nn.errors.ArgumentError: an unknown measure.
    """
    expect_folder(out_dir)
    measure = similarity_of(similarity_func, threshold)
    places = devices if isinstance(devices, tuple) else (devices, devices)
    first, second = as_graph(model1, model2, inputs), model2
    with ExitStack() as stack:
        stack.enter_context(on_device(first, places[0]))
        recorded = record(first, inputs_on(inputs, places[0]))
    with on_device(second, places[-1]):
        pairs = pair_calls(
            recorded, record(second, inputs_on(inputs, places[-1])), *map(fused_modules, (first, second))
        )
        with evaluated(second):
            rows = [_row(index, pair, measure) for index, pair in enumerate(pairs.pairs)]
    found = FeaturemapSimilarity(rows, measure, pairs.unpaired)
    if out_dir is not None:
        _write(found, Path(out_dir))
    return found


def _row(index: int, pair: Pair, measure: Similarity) -> SimilarityRow:
    call, reference = pair.second, real_values(pair.output)
    result = real_values(call.result)
    return SimilarityRow(
        position=index,
        name=call.label + _identity_mark(pair),
        type=call.kind,
        similarity=measure.of(reference.to(result.device), result),
        output_scale=scale_of(call.result),
        max_error=largest_error(pair.output, call.result),
        error_in_scales=in_scales(pair.output, call.result),
        same_input_error_in_scales=same_input_error(pair),
    )


def _identity_mark(pair: Pair) -> str:
    both = [isinstance(call.module, nn.Identity) for call in (pair.first[-1], pair.second)]
    return "(I vs I)" if all(both) else "(I)" if any(both) else ""


def _write(found: FeaturemapSimilarity, folder: Path) -> None:
    write_text(folder / "similarity.txt", found)
    write_text(folder / "ordered_op_error_similarity.txt", found.by_operator_error)
    write_page(folder / "similarity.html", "Similarity of feature maps", similarity_sections(found))


def similarity_sections(found: FeaturemapSimilarity) -> list[Section]:
    """Return what a page shows of a comparison: two charts, and the table."""
    names = [row.name for row in found]
    bad = [found.is_bad(row) for row in found]
    worst = found.by_operator_error.cells()[:10]
    headings = tuple(found.measure.name if each == "similarity" else each for each in _HEADINGS)
    charts = (
        Chart(found.measure.name, names, [row.similarity for row in found], bad, found.measure.best),
        Chart("error in scales on the same inputs", names, [row.same_input_error_in_scales for row in found]),
    )
    return [
        Section("By place, in order of execution", charts=charts),
        Section("Largest error on the same inputs", table=Table(headings, worst)),
        Section("All places", table=Table(headings, found.cells(), bad)),
        Section("Without counterpart", table=Table(("name", "reason"), found.unpaired)),
    ]
