"""numpy and torch agree to the bit: rounding, choice of parameters, and every operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpu_kernels import KERNELS, March, ProgramBuilder, fixed_point, march_row, multiplier, qint8, qint16, quant_dtype
from bpu_kernels.fields import leaves, map_arrays
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.testing import assert_integers_equal, random_case

torch = pytest.importorskip("torch")
torch_ops = pytest.importorskip("bpu_kernels.torch_ops")

seeds = st.integers(0, 2**32 - 1)
marches = st.sampled_from(list(March))


def same(of_numpy: Any, of_torch: Any) -> None:
    """Compare arrays, or dataclasses of arrays; real numbers bit for bit."""
    if isinstance(of_numpy, np.ndarray):
        assert np.array_equal(of_numpy, of_torch.numpy())
        assert of_numpy.dtype == of_torch.numpy().dtype
        return
    for a, b in zip(vars(of_numpy).values(), vars(of_torch).values(), strict=True):
        same(a, b)


def both(function: Callable[..., Any], *arrays: np.ndarray, **more: Any) -> None:
    """Call with numpy arrays and with torch tensors, and compare."""
    of_torch = function(*(torch.from_numpy(array.copy()) for array in arrays), xp=torch, **more)
    same(function(*(array.copy() for array in arrays), **more), of_torch)


def draw_multiplier(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rng.integers(0, 32, size), rng.integers(0, 32768, size), rng.integers(0, 32, size)


REQUANTIZATIONS: dict[str, Callable[..., Any]] = {
    "half": lambda acc, a, m, r, xp=np: fixed_point.half(r, xp),
    "saturate": lambda acc, a, m, r, xp=np: fixed_point.saturate(acc, 16, xp),
    "wrap32": lambda acc, a, m, r, xp=np: fixed_point.wrap32(acc),
    "shift_left": lambda acc, a, m, r, xp=np: fixed_point.shift_left(acc >> 20, r - a, xp),
    "compensation": lambda acc, a, m, r, xp=np: fixed_point.compensation(fields(a, m, r), xp),
    "requantize": lambda acc, a, m, r, xp=np: fixed_point.requantize(acc, fields(a, m, r), qint8, rounds=True, xp=xp),
    "requantize_wide": lambda acc, a, m, r, xp=np: fixed_point.requantize_wide(acc, r, rounds=True, xp=xp),
    "requantize_pool": lambda acc, a, m, r, xp=np: fixed_point.requantize_pool(
        acc, fields(a, m, r), rounds=False, xp=xp
    ),
    "rescale": lambda acc, a, m, r, xp=np: fixed_point.rescale(acc >> 32, fields(a, m, r), qint16, rounds=False, xp=xp),
}


def fields(a: Any, m: Any, r: Any) -> Multiplier:
    return Multiplier(accu_right_shift=a, output_scale=m, output_right_shift=r)


@pytest.mark.parametrize("function", REQUANTIZATIONS.values(), ids=REQUANTIZATIONS)
def test_fixed_point_is_the_same_in_both_namespaces(function: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    acc = rng.integers(-(2**47), 2**47, 5000) >> rng.integers(0, 47, 5000)
    both(function, acc, *draw_multiplier(rng, 5000))


def reals(rng: np.random.Generator, size: int) -> np.ndarray:
    """Log-uniform over 1e-12..1e12, with exact powers of two and numbers that round up to one."""
    drawn = 10.0 ** rng.uniform(-12, 12, size)
    powers = 2.0 ** rng.integers(-40, 40, size)
    choice = rng.integers(4, size=size)
    found: np.ndarray = np.select([choice == 0, choice == 1], [powers, powers * (1 - 2.0**-17)], drawn)
    return found


@given(seeds, marches, st.sampled_from([qint8, qint16]))
def test_chosen_multipliers_are_the_same(seed: int, march: March, out: Any) -> None:
    rng, row = np.random.default_rng(seed), march_row(march)
    real, bound = reals(rng, 200), np.floor(2.0 ** rng.uniform(0, 31, 200))
    both(lambda x, b, xp=np: multiplier.choose_multiplier(x, b, out, row, xp=xp), real, bound)
    both(lambda x, xp=np: multiplier.choose_rescale(x, row, xp=xp), real)
    both(lambda x, xp=np: multiplier.choose_residual_scale(x, row, xp=xp), real)


@given(seeds, marches)
def test_chosen_biases_are_the_same(seed: int, march: March) -> None:
    rng, row = np.random.default_rng(seed), march_row(march)
    bias = rng.uniform(-1, 1, 200) * 2.0 ** rng.uniform(0, 32, 200)
    both(
        lambda b, a, m, r, xp=np: multiplier.choose_bias(b, fields(a, m, r), row, xp=xp),
        bias,
        *draw_multiplier(rng, 200),
    )
    both(lambda b, xp=np: multiplier.choose_bias(b, None, row, xp=xp), bias)


@given(seeds)
def test_chosen_additions_are_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, out = (reals(rng, 1) for _ in range(3))
    bayes, bernoulli2 = march_row("bayes"), march_row("bernoulli2")
    for bits in (8, 16):
        both(lambda a, b, c, xp=np, n=bits: multiplier.choose_add_shifted(a, b, c, bayes, bits=n, xp=xp), x, y, out)
    both(lambda a, b, c, xp=np: multiplier.choose_add_scaled(a, b, c, bernoulli2, xp=xp), x, y, out)


RUNNABLE = [(name, march) for march in March for name in KERNELS if name not in march_row(march).refused_kernels]


@pytest.mark.parametrize(("name", "march"), RUNNABLE, ids=lambda value: str(value))
def test_torch_form_of_the_operator_gives_the_same_integers(name: str, march: March) -> None:
    from bpu_kernels.torch_ops.run import run_on_torch

    row = march_row(march)
    channel_first = KERNELS[name] in torch_ops.CHANNEL_FIRST
    for seed in range(12):
        kernel, inputs = random_case(name, march, np.random.default_rng(seed))
        maps = torch_ops.channel_first(KERNELS[name], len(inputs))
        tensors = [
            torch.from_numpy(np.moveaxis(x, -1, 1).copy() if is_map else x.copy())
            for x, is_map in zip(inputs, maps, strict=True)
        ]
        of_torch = map_arrays(kernel, lambda path, array: torch.from_numpy(array.copy()))
        got = run_on_torch(of_torch, row, *tensors).numpy()
        assert_integers_equal(np.moveaxis(got, 1, -1) if channel_first else got, kernel.run(row, *inputs), what=name)


@given(seeds)
@settings(max_examples=5)
def test_builder_stores_kernels_of_tensors(seed: int) -> None:
    kernel, inputs = random_case("conv2d", "bayes", np.random.default_rng(seed))
    builder = ProgramBuilder("bayes")
    values = [builder.input(f"x{i}", x.shape, quant_dtype(x.dtype), 1.0) for i, x in enumerate(inputs)]
    of_torch = map_arrays(kernel, lambda path, array: torch.from_numpy(array.copy()))
    builder.output(builder.add(of_torch, *values, name="conv", scale=1.0), "out")
    stored = builder.build().nodes[0].kernel
    for a, b in zip(leaves(stored), leaves(kernel), strict=True):
        assert np.array_equal(a.value, b.value)
