"""The registered operators: their arguments have names of their own, by which torch.export stores a call."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bpu_kernels import KERNELS

torch: Any = pytest.importorskip("torch")
library: Any = pytest.importorskip("bpu_kernels.torch_ops.library")


@pytest.mark.parametrize("name", KERNELS)
def test_no_two_arguments_of_an_operator_share_a_name(name: str) -> None:
    schema = getattr(getattr(torch.ops, library.NAMESPACE), name).default._schema
    assert max(Counter(argument.name for argument in schema.arguments).values()) == 1
