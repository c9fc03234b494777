"""KERNELS is complete: every operator has cases, whose kernels are valid and do what their shape rules say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bpu_kernels import KERNELS, ArgumentError, Kernel, March, TensorSpec, march_row, quant_dtype
from bpu_kernels.check import infer
from bpu_kernels.fields import field_types, leaves
from bpu_kernels.testing import CASES, random_case

RUNNABLE = [(name, march) for march in March for name in KERNELS if name not in march_row(march).refused_kernels]


def test_every_operator_has_cases() -> None:
    assert sorted(CASES) == sorted(KERNELS)


def test_every_operator_runs_on_some_march() -> None:
    assert {name for name, _ in RUNNABLE} == set(KERNELS)


def test_refused_operators_are_operators() -> None:
    assert all(name in KERNELS for march in March for name in march_row(march).refused_kernels)


@pytest.mark.parametrize("cls", KERNELS.values(), ids=KERNELS)
def test_every_operator_says_what_it_is(cls: type[Kernel]) -> None:
    assert cls.__doc__
    assert dataclasses.is_dataclass(cls)
    assert KERNELS[cls.name] is cls
    assert set(field_types(cls)) == {field.name for field in dataclasses.fields(cls)}


@pytest.mark.parametrize(("name", "march"), RUNNABLE, ids=lambda value: str(value))
def test_random_cases_are_valid_and_give_what_the_shape_rule_says(name: str, march: March) -> None:
    row = march_row(march)
    for seed in range(25):
        kernel, inputs = random_case(name, march, np.random.default_rng(seed))
        specs = [TensorSpec(value.shape, quant_dtype(value.dtype)) for value in inputs]
        assert kernel.problems(row, *specs) == []
        described, got = infer(kernel, *specs), kernel.run(row, *inputs)
        assert (got.shape, got.dtype) == (described.shape, described.dtype.numpy)
        assert kernel.macs(*specs) >= 0


@pytest.mark.parametrize(("name", "march"), RUNNABLE, ids=lambda value: str(value))
def test_random_cases_depend_on_the_seed_alone(name: str, march: March) -> None:
    first, second = (random_case(name, march, np.random.default_rng(7)) for _ in range(2))
    for a, b in zip(leaves(first[0]), leaves(second[0]), strict=True):
        assert np.array_equal(a.value, b.value)
    assert all(np.array_equal(a, b) for a, b in zip(first[1], second[1], strict=True))


def test_cases_of_an_operator_that_the_march_lacks_are_refused() -> None:
    with pytest.raises(ArgumentError, match="no cases of 'matmul' for bernoulli2; there are cases of add_scaled"):
        random_case("matmul", "bernoulli2", np.random.default_rng(0))
