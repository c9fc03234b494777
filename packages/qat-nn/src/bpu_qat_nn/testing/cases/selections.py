"""Cases of operators that compare, choose and sample; a part of CASES."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import Correlation, MultiScaleRoIAlign, RoIAlign

from ...detection import PointPillarsScatter
from ..case import BAYES, MAP, PAIR, TOKENS, CallsLayer, OperatorCase, calls, calls_layer

__all__ = ["SELECTIONS"]

_PILLARS = nn.Parameter(
    torch.tensor(
        [(0, 0, 0), (1, 3, 4), (0, 1, 2), (0, 1, 2), (-1, -1, -1), (2, 0, 0), (0, 4, 0), (1, 0, 0), (0, 0, 4)]
    ),
    requires_grad=False,
)
"""Cloud, row and column; some outside of a map of 4 x 5 for two clouds, two at one place."""
_RELATIONS = {name: getattr(torch, name) for name in ("eq", "ge", "gt", "le", "lt", "ne")}


def _boxes(drawn: Tensor) -> Tensor:
    """Return boxes (n, 4), most of them within a map of 20 x 24, of any four numbers."""
    corner = drawn[:, :2] * 8.0
    return torch.cat([corner, corner + drawn[:, 2:] * 6.0 + 8.0], 1)


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
    "argmax": OperatorCase(make=calls(lambda x: x.argmax(1).float()), marches=BAYES, bits=(8, 16)),
    "argmax_kept": OperatorCase(make=calls(lambda x: x.argmin(1, keepdim=True).float())),
    "argmax_of_many": OperatorCase(
        make=calls(lambda x: torch.gather(x, 1, x.argmax(1, keepdim=True))), shapes=((1, 150, 2, 3),), marches=BAYES
    ),
    "gather_by_input": OperatorCase(
        make=calls(lambda x, y: torch.gather(x, 1, (y > 0).float().argmax(1, keepdim=True))), shapes=PAIR, marches=BAYES
    ),
    "max_values": OperatorCase(make=calls(lambda x: x.max(2, keepdim=True)[0]), marches=BAYES),
    "topk_values": OperatorCase(make=calls(lambda x: x.topk(3, 1)[0] * 0.5), marches=BAYES, bits=(8, 16)),
    "gather_by_another": OperatorCase(
        make=calls(lambda x, y: torch.gather(x, 3, y.topk(4, dim=3, largest=False).indices)),
        shapes=PAIR,
        marches=BAYES,
        bits=(8, 16),
    ),
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
        f"grid_sample_{mode}_{padding}{'_aligned' * aligned}": OperatorCase(
            make=calls(
                lambda x, grid, mode=mode, padding=padding, aligned=aligned: F.grid_sample(
                    x, grid, mode, padding, align_corners=aligned
                )
            ),
            shapes=(MAP, (2, 5, 6, 2)),
            marches=BAYES,
        )
        for mode, padding, aligned in (
            ("bilinear", "zeros", False),
            ("bilinear", "border", True),
            ("nearest", "zeros", True),
            ("nearest", "border", False),
        )
    },
    **{
        f"correlation_{name}": OperatorCase(
            make=calls_layer(made, lambda layer, x, y: layer(x, y)),
            shapes=PAIR,
            marches=BAYES,
            open_batch=name == "of_points",
        )
        for name, made in (
            ("of_points", Correlation(1, 2, 1, 2, 2)),
            ("of_patches", Correlation(3, 1, 2, 1, 1)),
            ("of_differences", Correlation(1, 1, 1, 1, 0, is_multiply=False)),
        )
    },
    "point_pillars_scatter": OperatorCase(
        make=lambda: CallsLayer(
            nn.ModuleList([PointPillarsScatter((2, 16, 4, 5)), nn.ParameterList([_PILLARS])]),
            lambda layers, x: layers[0](x.squeeze(0), layers[1][0]),
        ),
        shapes=((1, 9, 16),),
        marches=BAYES,
        bits=(8, 16),
    ),
    "roi_align": OperatorCase(
        make=calls_layer(RoIAlign((3, 2), 0.5, 2), lambda align, x, y: align(x, [_boxes(y[0]), _boxes(y[1])])),
        shapes=(MAP, (2, 7, 4)),
        marches=BAYES,
    ),
    "roi_align_of_numbered_boxes": OperatorCase(
        make=calls_layer(
            RoIAlign(2, 0.5, 2), lambda align, x, y: align(x, torch.cat([y[0, :, :1] * 0.0, _boxes(y[0])], 1))
        ),
        shapes=((1, 8, 10, 12), (1, 7, 4)),
        marches=BAYES,
    ),
    "multi_scale_roi_align": OperatorCase(
        make=calls_layer(
            MultiScaleRoIAlign(None, 2, 3, canonical_scale=16, canonical_level=1, strides=(2, 4), aligned=True),
            lambda align, x, y: align([x, F.max_pool2d(x, 2) * 1.5], [_boxes(y[0])]),
        ),
        shapes=((1, 8, 10, 12), (1, 7, 4)),
        marches=BAYES,
    ),
    **{
        function.__name__: OperatorCase(
            make=calls(lambda x, y, function=function: function(x, y * 2.0)), shapes=PAIR, bits=(8, 16)
        )
        for function in (torch.maximum, torch.minimum)
    },
    "parameter_without_axes": OperatorCase(
        make=calls_layer(
            nn.ParameterList([torch.tensor(0.3)]), lambda least, x: torch.where(x > 0, x, torch.maximum(x, least[0]))
        ),
        marches=BAYES,
    ),
}
"""Name -> case."""
