"""Replace torch.einsum of two tensors by a matrix product between movements of axes.

Given:  `einsum("byhwc,wkc->byhwk", x, w)`
Result: `x.permute(0, 1, 3, 2, 4) @ w.permute(0, 2, 1)`, permuted back
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import Node

from .replacement import Call

__all__ = ["einsum"]


def einsum(call: Call) -> Node:
    """Return the result of the call in other words."""
    equation, *operands = call.node.args
    operands = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    if not isinstance(equation, str) or len(operands) != 2 or not all(map(call.is_tensor, operands)):
        call.keep("it has other operands than two tensors")
    terms, arrow, result = equation.replace(" ", "").partition("->")
    first, second = terms.split(",")
    if not arrow or "." in equation or any(len(set(term)) != len(term) for term in (first, second)):
        call.keep("its equation has no result, dots, or a letter twice in one operand")
    summed = [letter for letter in first if letter in second and letter not in result]
    rows = [letter for letter in first if letter not in second]
    columns = [letter for letter in second if letter not in first]
    if len(summed) != 1 or len(columns) > 1 or set(rows + columns) - set(result):
        call.keep("it is no matrix product: it has not one letter that is summed, or several that are only in one")
    # All letters of the first but the last of its own lead, and broadcast over the second where that lacks them.
    row = rows[-1:]
    leading = [letter for letter in first if letter not in (*row, *summed)]
    x = _arranged(call, operands[0], first, [*leading, *(row or "1"), *summed])
    shared = [letter if letter in second else "1" for letter in leading]
    while shared[:1] == ["1"]:
        shared.pop(0)
    y = _arranged(call, operands[1], second, [*shared, *summed, *(columns or "1")])
    product = call.call_functional("matmul", x, y)
    return _without_ones(call, product, [*leading, *(row or "1"), *(columns or "1")], result)


def _arranged(call: Call, x: Any, letters: str, wanted: Sequence[str]) -> Node:
    """Bring the axes of an operand into an order; "1" is a new axis of length 1."""
    axes = [letters.index(letter) for letter in wanted if letter != "1"]
    moved: Node = x if axes == sorted(axes) else call.create("call_method", "permute", (x, *axes))
    for axis, letter in enumerate(wanted):
        if letter == "1":
            moved = call.create("call_method", "unsqueeze", (moved, axis))
    return moved


def _without_ones(call: Call, x: Node, letters: Sequence[str], result: str) -> Node:
    """Drop the axes of length 1, and bring the others into the order of the result."""
    for axis in reversed(range(len(letters))):
        if letters[axis] == "1":
            x = call.create("call_method", "squeeze", (x, axis))
    moved = _arranged(call, x, "".join(letter for letter in letters if letter != "1"), result)
    # What follows may view it otherwise, as it can what torch.einsum gives.
    return moved if moved is x else call.create("call_method", "contiguous", (moved,))
