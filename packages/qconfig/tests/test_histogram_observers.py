"""The thresholds of the histogram observers, against plain numpy on histogram and raw data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bpu_qconfig import InvalidQConfigError, KLObserver, MixObserver, MSEObserver, PercentileObserver
from bpu_qconfig.observers import Histogram
from bpu_qconfig.observers.histogram import _count_magnitudes

Floats = npt.NDArray[np.float64]


def tailed(seed: int = 0, size: int = 20_000) -> npt.NDArray[np.float32]:
    """Values with a long tail, as activations have."""
    return np.random.default_rng(seed).laplace(size=size).astype(np.float32)


def quantized(values: npt.NDArray[np.float32], threshold: float, quant_max: int = 127) -> Floats:
    scale = 2.0 * threshold / (2 * quant_max + 1)
    return np.clip(np.rint(values.astype(np.float64) / scale), -quant_max - 1, quant_max) * scale


def error(values: npt.NDArray[np.float32], threshold: float) -> float:
    return float(np.square(quantized(values, threshold) - values).sum())


@given(
    values=st.lists(st.integers(-1000, 1000), min_size=1, max_size=50),
    bins=st.sampled_from([2, 7, 64]),
)
def test_histogram_counts_every_value_once(values: list[int], bins: int) -> None:
    """Bin i holds i * amplitude / bins <= |x| < (i + 1) * amplitude / bins; the amplitude is in the last."""
    rows = torch.tensor([values], dtype=torch.float32)
    amplitude = rows.abs().amax(1)
    histogram = Histogram.of(rows, amplitude, bins)
    assert histogram.counts.sum() == len(values)
    largest = int(amplitude)
    per_unit = np.float32(bins) / np.float32(largest) if largest else np.float32(0)
    expected = np.zeros(bins)
    for value in values:
        expected[min(int(np.float32(abs(value)) * per_unit), bins - 1)] += 1
    assert histogram.counts[0].tolist() == expected.tolist()


def test_histogram_rows_are_counted_apart() -> None:
    rows = torch.tensor([[0.0, 1.0, 2.0], [0.0, 10.0, 0.0]])
    histogram = Histogram.of(rows, torch.tensor([2.0, 10.0]), 4)
    assert histogram.counts.tolist() == [[1.0, 0.0, 1.0, 1.0], [2.0, 0.0, 0.0, 1.0]]


@pytest.mark.parametrize("shape", [(1, 100_003), (7, 33), (3, 5000), (1, 1)], ids=str)
@pytest.mark.parametrize("bins", [2, 512, 2048])
def test_count_of_the_engine_is_that_of_torch(shape: tuple[int, int], bins: int) -> None:
    rows = torch.from_numpy(tailed(3, shape[0] * shape[1])).reshape(shape)
    amplitude = rows.abs().amax(1)
    assert torch.equal(Histogram.of(rows, amplitude, bins).counts, _count_magnitudes(rows, amplitude, bins))


def test_histogram_of_channels_last_is_that_of_contiguous() -> None:
    x = torch.from_numpy(tailed(1, 2 * 5 * 7 * 9)).reshape(2, 5, 7, 9)
    observers = PercentileObserver(percentile=90), PercentileObserver(percentile=90)
    for observer, memory in zip(observers, (torch.contiguous_format, torch.channels_last), strict=True):
        observer(x.contiguous(memory_format=memory))
    assert observers[0].amplitude() == observers[1].amplitude() < x.abs().max()


def test_histogram_of_bad_values_stays_within_its_bins() -> None:
    rows = torch.tensor([[float("nan"), float("inf"), 1.0]])
    for amplitude in (float("nan"), float("inf"), 1.0, 0.0):
        assert Histogram.of(rows, torch.tensor([amplitude]), 8).counts.sum() == 3


@pytest.mark.parametrize("percentile", [50.0, 99.0, 99.9, 99.99])
@pytest.mark.parametrize("bins", [2048, 8192])
def test_percentile_is_that_of_the_data_within_a_bin(percentile: float, bins: int) -> None:
    values = tailed()
    observer = PercentileObserver(percentile=percentile, bins=bins)
    observer(torch.from_numpy(values))
    threshold = observer.amplitude().item()
    magnitude = np.sort(np.abs(values))
    exact = magnitude[int(np.ceil(percentile / 100.0 * len(values))) - 1]
    assert 0.0 <= threshold - exact <= magnitude[-1] / bins * 1.001


def test_percentile_100_is_the_whole_range() -> None:
    values = torch.from_numpy(tailed())
    observer = PercentileObserver(percentile=100)
    observer(values)
    assert (observer.min_val, observer.max_val) == (values.min(), values.max())


def test_threshold_cuts_both_sides_and_keeps_a_range_within_it() -> None:
    observer = PercentileObserver(percentile=99.0)
    observer(torch.cat([torch.linspace(0, 1, 1000), torch.tensor([50.0])]))
    assert observer.min_val == 0.0
    assert 0.98 <= observer.max_val.item() <= 1.02


def test_thresholds_are_averaged_not_histograms() -> None:
    observer = PercentileObserver(percentile=100, averaging_constant=0.25)
    observer(torch.tensor([-1.0, 1.0]))
    observer(torch.tensor([-3.0, 5.0]))
    assert (observer.min_val.item(), observer.max_val.item()) == (-1.5, 2.0)
    assert set(observer.state_dict()) == {"min_val", "max_val"}


@pytest.mark.parametrize("seed", range(4))
def test_mse_finds_the_best_percent_step_of_the_raw_data(seed: int) -> None:
    values = tailed(seed)
    observer = MSEObserver()
    observer(torch.from_numpy(values))
    largest = float(np.abs(values).max())
    found = observer.amplitude().item()
    assert found / largest * 100 == pytest.approx(round(found / largest * 100), abs=1e-3)
    best = min(error(values, largest * percent / 100) for percent in range(1, 101))
    assert error(values, found) <= best * 1.01


@pytest.mark.parametrize("stride", [1, 3, 20, 100])
def test_mse_stride_tries_every_so_many_steps_from_the_top(stride: int) -> None:
    values = torch.from_numpy(tailed())
    fine, coarse = MSEObserver(), MSEObserver(stride=stride)
    fine(values)
    coarse(values)
    step = coarse.amplitude() / values.abs().max() * 100
    assert (100 - round(step.item())) % stride == 0
    assert abs(fine.amplitude() - coarse.amplitude()) <= values.abs().max() * stride / 100 or stride == 100


def test_mse_keeps_the_whole_range_of_evenly_spread_data() -> None:
    observer = MSEObserver()
    observer(torch.linspace(-127.5, 127.5, 256))
    assert observer.amplitude().item() == pytest.approx(127.5, rel=0.02)


def test_mse_of_qint16_hardly_cuts() -> None:
    values = torch.from_numpy(tailed())
    observer = MSEObserver(dtype="qint16")
    observer(values)
    assert observer.amplitude() == values.abs().max()


def test_mix_takes_the_percentile_with_least_error() -> None:
    values = tailed(7)
    observer = MixObserver()
    observer(torch.from_numpy(values))
    candidates = {}
    for percentile in MixObserver.percentiles:
        single = PercentileObserver(percentile=percentile)
        single(torch.from_numpy(values))
        candidates[single.amplitude().item()] = error(values, single.amplitude().item())
    assert observer.amplitude().item() in candidates
    assert candidates[observer.amplitude().item()] <= min(candidates.values()) * 1.01


def reference_kl_cut(counts: Floats, levels: int) -> int:
    """The published procedure, cut by cut and level by level."""
    best, least = len(counts), np.inf
    for cut in range(len(counts), levels - 1, -1):
        p = counts[:cut].copy()
        p[-1] += counts[cut:].sum()
        q = np.zeros(cut)
        for level in range(levels):
            members = [j for j in range(cut) if j * levels // cut == level]
            occupied = [j for j in members if p[j] > 0]
            for j in occupied:
                q[j] = counts[members].sum() / len(occupied)
        p /= p.sum()
        q /= max(q.sum(), 1e-12)
        divergence = sum(p[j] * np.log(p[j] / max(q[j], 1e-12)) for j in range(cut) if p[j] > 0)
        if divergence < least:
            best, least = cut, divergence
    return best


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), bins=st.sampled_from([8, 12, 20]))
def test_kl_cut_equals_the_published_procedure(seed: int, bins: int) -> None:
    values = tailed(seed, 500)
    observer = KLObserver(bins=bins, quant_max=7)
    observer(torch.from_numpy(values))
    rows = torch.from_numpy(values).reshape(1, -1)
    histogram = Histogram.of(rows, rows.abs().amax(1), bins)
    cut = reference_kl_cut(histogram.counts[0].numpy(), 8)
    assert observer.amplitude().item() == pytest.approx(histogram.amplitude.item() * cut / bins, rel=1e-6)


def test_kl_cuts_a_lonely_outlier() -> None:
    values = torch.cat([torch.from_numpy(tailed()), torch.tensor([200.0])])
    observer = KLObserver()
    observer(values)
    assert observer.amplitude() < 100.0


def test_kl_cannot_cut_where_levels_outnumber_bins() -> None:
    values = torch.from_numpy(tailed())
    observer = KLObserver(dtype="qint16")
    observer(values)
    assert observer.amplitude() == values.abs().max()


def test_kl_update_interval_analyses_every_so_many_batches() -> None:
    observer = KLObserver(update_interval=3, averaging_constant=1.0)
    observer(torch.ones(4))
    observer(torch.ones(4))
    assert not observer.observed
    observer(torch.ones(4) * 2)
    assert observer.amplitude() == 2.0
    observer(torch.ones(4) * 9)
    assert observer.amplitude() == 2.0


def test_kl_bins_below_two_are_refused() -> None:
    with pytest.raises(InvalidQConfigError):
        KLObserver(bins=0)
