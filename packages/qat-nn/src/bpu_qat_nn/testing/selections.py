"""Cases of operators that compare and choose; a part of CASES."""

from __future__ import annotations

import torch
from torch import nn

from .case import BAYES, PAIR, TOKENS, OperatorCase, calls, calls_layer

__all__ = ["SELECTIONS"]

_RELATIONS = {name: getattr(torch, name) for name in ("eq", "ge", "gt", "le", "lt", "ne")}

SELECTIONS: dict[str, OperatorCase] = {
    **{
        f"{name}_of_two": OperatorCase(
            make=calls(lambda x, y, relation=relation: torch.where(relation(x, y), x, y * 0.5)),
            shapes=PAIR,
            marches=BAYES,
            bits=(8, 16),
        )
        for name, relation in _RELATIONS.items()
        if name in ("eq", "ge", "lt")
    },
    **{
        f"{name}_number": OperatorCase(
            make=calls(lambda x, relation=relation: relation(x, 0.3) * x),
            marches=BAYES,
            bits=(8, 16),
        )
        for name, relation in _RELATIONS.items()
    },
    "greater_as_float": OperatorCase(make=calls(lambda x: (x > 0.3).float())),
    "where_number": OperatorCase(
        make=calls(lambda x, y: torch.where(y > 0, x, 0.7)), shapes=PAIR, marches=BAYES, bits=(8, 16)
    ),
    "masked_fill_zero": OperatorCase(
        make=calls(lambda x, y: x.masked_fill(y < 0.2, 0.0)), shapes=PAIR, marches=BAYES, bits=(8, 16)
    ),
    "masked_fill_infinity_softmax": OperatorCase(
        make=calls_layer(
            nn.ParameterList([nn.Parameter(torch.ones(9, 16).tril(7).bool(), requires_grad=False)]),
            lambda mask, x: x.masked_fill(mask[0] == 0, float("-inf")).softmax(-1),
        ),
        shapes=(TOKENS,),
        marches=BAYES,
    ),
    **{
        function.__name__: OperatorCase(
            make=calls(lambda x, y, function=function: function(x, y * 2.0)), shapes=PAIR, marches=BAYES, bits=(8, 16)
        )
        for function in (torch.maximum, torch.minimum)
    },
}
"""Name -> case."""
