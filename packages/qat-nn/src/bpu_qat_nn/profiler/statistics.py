"""``profile_featuremap``: smallest, largest, mean and variance of every tensor, and what of it its scale cuts off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from bpu_kernels.dtypes import quant_dtype
from bpu_kernels.whole_file import expect_folder

from ..text_table import text_table, write_text
from .histograms import write_histograms
from .page import Chart, Section, Table, write_page
from .raw_features import RawFeature

__all__ = ["FeatureStatistics", "StatisticRow", "profile_featuremap", "statistic_sections"]

_HEADINGS = (
    *("Module Index", "Module Name", "Module Type", "Input/Output/Attr"),
    *("Min", "Max", "Mean", "Var", "Scale", "Dtype", "Cut Off"),
)


class StatisticRow(NamedTuple):
    """One tensor."""

    position: int
    """Which place it belongs to, in order of execution from 0."""
    name: str
    type: str
    attr: str
    min: float
    max: float
    mean: float
    var: float
    scale: tuple[float, ...]
    """One, or one per channel; empty for a real tensor."""
    dtype: str
    cut_off: float | None
    """Share of elements that lie at the ends of the range that scale and type allow; None for a real tensor."""

    @property
    def range(self) -> float:
        """Largest minus smallest."""
        return self.max - self.min


class FeatureStatistics(list[StatisticRow]):
    """The rows in order of execution; prints as two tables, in that order and by descending range."""

    def __init__(self, rows: Iterable[StatisticRow], shows_channels: bool = False) -> None:
        super().__init__(rows)
        self.shows_channels = shows_channels

    @property
    def by_range(self) -> list[StatisticRow]:
        """The rows, those of the widest range first."""
        return sorted(self, key=lambda row: -row.range)

    def cells(self, rows: Sequence[StatisticRow]) -> list[tuple[str, ...]]:
        """Return rows as text."""
        return [_cells(row, self.shows_channels) for row in rows]

    def __str__(self) -> str:
        in_order, by_range = text_table(_HEADINGS, self.cells(self)), text_table(_HEADINGS, self.cells(self.by_range))
        return f"In order of execution\n\n{in_order}\n\nBy descending range\n\n{by_range}"


def _cells(row: StatisticRow, shows_channels: bool) -> tuple[str, ...]:
    numbers = (f"{value:.6g}" for value in (row.min, row.max, row.mean, row.var))
    shown = row.scale if shows_channels or len(row.scale) <= 1 else (max(row.scale),)
    scale = " ".join(f"{each:.6g}" for each in shown) or "-"
    cut = "-" if row.cut_off is None else f"{row.cut_off:.2%}"
    several = f" (largest of {len(row.scale)})" if len(shown) < len(row.scale) else ""
    return (str(row.position), row.name, row.type, row.attr, *numbers, scale + several, row.dtype, cut)


def profile_featuremap(
    featuremap: Sequence[RawFeature],
    with_tensorboard: bool = False,
    tensorboard_dir: str | None = None,
    print_per_channel_scale: bool = False,
    show_per_channel: bool = False,
    out_dir: str | None = None,
    file_name: str | None = None,
) -> FeatureStatistics:
    """Return statistics of the tensors that ``get_raw_features`` gave.

    A wide range tells a layer whose steps are coarse; a scale that cuts off much, one that was calibrated too narrow.

    Args:
        featuremap: what ``get_raw_features`` returned.
        with_tensorboard: write histograms for tensorboard, which has to be installed.
        tensorboard_dir: folder for these, "runs" if None.
        print_per_channel_scale: show all scales of a tensor that has one per channel, instead of the largest.
        show_per_channel: add a chart of the largest magnitude of each channel to the page, for each tensor.
        out_dir: folder for the files; None writes nothing.
        file_name: of the files, "statistic" if None: with .txt the tables, with .html the page.
    """
    expect_folder(out_dir)
    found = FeatureStatistics(_rows(featuremap), print_per_channel_scale)
    if with_tensorboard:
        write_histograms(
            {f"{each['module_name']}/{each['attr']}": each["data"] for each in featuremap}, tensorboard_dir
        )
    if out_dir is not None:
        folder, name = Path(out_dir), file_name or "statistic"
        write_text(folder / f"{name}.txt", found)
        sections = statistic_sections(found)
        if show_per_channel:
            sections.append(Section("Largest magnitude by channel", charts=[_channels(each) for each in featuremap]))
        write_page(folder / f"{name}.html", "Statistics of feature maps", sections)
    return found


def _rows(featuremap: Sequence[RawFeature]) -> Iterable[StatisticRow]:
    positions: dict[str, int] = {}
    for feature in featuremap:
        position = positions.setdefault(feature["module_name"], len(positions))
        data = _real(feature)
        extremes = (data.min(), data.max(), data.mean(), data.var(correction=0)) if data.numel() else (0.0,) * 4
        low, high, mean, var = map(float, extremes)
        scale = () if feature["scale"] is None else tuple(feature["scale"].reshape(-1).tolist())
        yield StatisticRow(
            position=position,
            name=feature["module_name"],
            type=feature["module_type"],
            attr=feature["attr"],
            min=low,
            max=high,
            mean=mean,
            var=var,
            scale=scale,
            dtype=feature["dtype"],
            cut_off=_cut_off(feature),
        )


def _real(feature: RawFeature) -> Tensor:
    """Return the real values, float64; integers are multiplied by their scale."""
    data, scale = feature["data"], feature["scale"]
    if scale is None or data.is_floating_point():
        return data.double()
    return data.double() * _along(scale.double(), data, feature["ch_axis"])


def _along(scale: Tensor, data: Tensor, axis: int) -> Tensor:
    if axis < 0:
        return scale
    return scale.reshape([-1 if each == axis else 1 for each in range(data.dim())])


def _cut_off(feature: RawFeature) -> float | None:
    scale = feature["scale"]
    if scale is None or not feature["data"].numel():
        return None
    steps = (_real(feature) / _along(scale.double(), feature["data"], feature["ch_axis"])).round()
    dtype = quant_dtype(feature["dtype"])
    return float(((steps <= dtype.min) | (steps >= dtype.max)).double().mean())


def _channels(feature: RawFeature) -> Chart:
    """Return the chart of a tensor; its channels lie on axis 0 of parameters and on axis 1 of feature maps."""
    data = _real(feature).abs()
    axis = feature["ch_axis"] if feature["ch_axis"] >= 0 else int(feature["attr"] not in ("weight", "bias"))
    axis = min(axis, data.dim() - 1)
    largest = data.movedim(axis, 0).flatten(1).amax(1) if data.dim() > 1 and data.numel() else data.reshape(-1)
    title = f"{feature['module_name']} {feature['attr']}"
    return Chart(title, [f"channel {index}" for index in range(len(largest))], largest.tolist())


def statistic_sections(found: FeatureStatistics) -> list[Section]:
    """Return what a page shows of the statistics."""
    outputs = [row for row in found if row.attr.startswith("output")]
    names = [f"{row.name} {row.attr}" for row in outputs]
    charts = (
        Chart("range of outputs", names, [row.range for row in outputs]),
        Chart("share of outputs at the ends of their range", names, [row.cut_off for row in outputs]),
    )
    return [
        Section("Outputs, in order of execution", charts=charts),
        Section("All tensors, in order of execution", table=Table(_HEADINGS, found.cells(found))),
        Section("All tensors, by descending range", table=Table(_HEADINGS, found.cells(found.by_range))),
    ]
