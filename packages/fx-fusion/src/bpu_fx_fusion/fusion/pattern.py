"""Fusion patterns: how they are written, and the one form of each that graphs are matched with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..errors import PatternError
from ..functions.recipe import Binary, Method, ModuleForm
from ..functions.table import RECIPES
from ..modules.float_functional import FloatFunctional
from ..torch_ao import float_functional_method

Pattern = Any
"""An operation, or a tuple of an operation and the patterns of its inputs: `(nn.ReLU, (nn.BatchNorm2d, nn.Conv2d))`.

It is written from the last operation backwards. An operation is a Module type (matched exactly), a function or operator
such as `torch.add`, or a method of FloatFunctional. MatchAllNode stands for any input.
"""


class MatchAllNode:
    """Matches any input of an operation in a fusion pattern."""


def canonical_pattern(pattern: Pattern) -> Pattern:
    """Return the pattern with every operation in the form that it has after functions have become modules.

    Raises:
        PatternError: An operation is neither a Module type nor callable, or a tuple is empty or begins with a tuple.
    """
    if isinstance(pattern, tuple):
        if not pattern or isinstance(pattern[0], tuple) or pattern[0] is MatchAllNode:
            raise PatternError(f"A pattern is (operation, input, ...) with the last operation first, got {pattern!r}.")
        return tuple(canonical_pattern(part) for part in pattern)
    if isinstance(pattern, type):
        if pattern is MatchAllNode or issubclass(pattern, nn.Module):
            return pattern
    elif callable(pattern):
        return _canonical_function(pattern)
    raise PatternError(f"A pattern consists of Module types, functions and MatchAllNode, got {pattern!r}.")


def pattern_length(pattern: Pattern) -> int:
    """Return the number of operations in a pattern; MatchAllNode is none."""
    if isinstance(pattern, tuple):
        return sum(pattern_length(part) for part in pattern)
    return int(pattern is not MatchAllNode)


def describe_pattern(pattern: Pattern) -> str:
    """Return a pattern as text, with the names of its operations."""
    if isinstance(pattern, tuple):
        return f"({', '.join(describe_pattern(part) for part in pattern)})"
    return str(getattr(pattern, "__name__", pattern))


def _canonical_function(function: Callable[..., Any]) -> Any:
    method = float_functional_method(function)
    if method is not None:
        return getattr(FloatFunctional, method, function)
    recipe = RECIPES.get(function)
    if isinstance(recipe, ModuleForm):
        return recipe.module
    if isinstance(recipe, Binary):
        return getattr(FloatFunctional, recipe.tensors) if isinstance(recipe.tensors, str) else recipe.tensors
    if isinstance(recipe, Method):
        return getattr(FloatFunctional, recipe.op)
    return function
