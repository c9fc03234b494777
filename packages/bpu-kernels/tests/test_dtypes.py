"""The integer types: names, ranges, and what may be given where a type is expected."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from bpu_kernels import DTYPES, BpuKernelsError, QuantDType, qinfo, qint8, qint16, qint32, quant_dtype


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_range_is_that_of_the_storage(dtype: QuantDType) -> None:
    info = np.iinfo(dtype.numpy)
    assert qinfo(dtype) == (dtype.min, dtype.max) == (info.min, info.max)


GIVEN = {
    "the type": (qint8, qint8),
    "its name": ("qint16", qint16),
    "numpy's name": ("int32", qint32),
    "numpy's type": (np.dtype("int8"), qint8),
    "torch's name": ("torch.qint8", qint8),
}


@pytest.mark.parametrize(("given", "expected"), GIVEN.values(), ids=GIVEN)
def test_a_type_may_be_given_in_many_ways(given: object, expected: QuantDType) -> None:
    assert quant_dtype(given) is expected


@pytest.mark.parametrize("given", ["qint4", "float32", "uint8", None, 8], ids=str)
def test_anything_else_is_refused_with_the_list(given: object) -> None:
    with pytest.raises(BpuKernelsError, match="expected one of the types qint8, qint16, qint32"):
        quant_dtype(given)


def test_copies_and_pickles_are_the_same_object() -> None:
    assert copy.deepcopy(qint8) is qint8
    assert pickle.loads(pickle.dumps(qint16)) is qint16
