"""Cases of operators that are made of others: reductions, norms, softmax, attention, cells; a part of CASES."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import LayerNorm

from ..case import BAYES, PAIR, TOKENS, OperatorCase, calls, calls_layer

__all__ = ["COMPOSITES"]

_VOLUME = ((2, 4, 5, 6, 7),)


def _both(states: tuple[Tensor, Tensor], dim: int) -> Tensor:
    """Return two states joined; torch 2.6 traces no cat of a pair that is symbolic as a whole."""
    return torch.cat([states[0], states[1]], dim)


_HEADS = (2, 3, 9, 16)
"""Shape of what heads attend to: N, heads, L, E."""


def _random_affine(norm: nn.Module) -> nn.Module:
    """Return a normalization whose weight and bias are not those of the identity."""
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return norm


COMPOSITES = {
    "amax_channels": OperatorCase(make=calls(lambda x: torch.amax(x, 1, keepdim=True)), bits=(8, 16), open_batch=True),
    "amin_rows": OperatorCase(make=calls(lambda x: x.amin(dim=(2, 3))), bits=(8, 16)),
    "softmax": OperatorCase(
        make=lambda: nn.Softmax(-1), shapes=(TOKENS,), marches=BAYES, bits=(8, 16), open_batch=True
    ),
    "softmax_channels": OperatorCase(make=lambda: nn.Softmax(1), marches=BAYES),
    "layer_norm": OperatorCase(
        make=lambda: _random_affine(nn.LayerNorm(16)), shapes=(TOKENS,), marches=BAYES, bits=(8, 16), open_batch=True
    ),
    "layer_norm_of_map": OperatorCase(
        make=calls(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2)),
        marches=BAYES,
        open_batch=True,
    ),
    "layer_norm_over_three_axes": OperatorCase(make=lambda: _random_affine(LayerNorm([8, 10, 12])), marches=BAYES),
    "rms_norm": OperatorCase(make=lambda: _random_affine(nn.RMSNorm(16)), shapes=(TOKENS,), marches=BAYES),
    "group_norm": OperatorCase(
        make=lambda: _random_affine(nn.GroupNorm(2, 8)), marches=BAYES, bits=(8, 16), open_batch=True
    ),
    "group_norm_tokens": OperatorCase(make=lambda: nn.GroupNorm(3, 9), shapes=(TOKENS,), marches=BAYES),
    "instance_norm_1d": OperatorCase(make=lambda: nn.InstanceNorm1d(9), shapes=(TOKENS,), marches=BAYES),
    "instance_norm_3d": OperatorCase(
        make=lambda: _random_affine(nn.InstanceNorm3d(4, affine=True)), shapes=_VOLUME, marches=BAYES
    ),
    "instance_norm": OperatorCase(make=lambda: nn.InstanceNorm2d(8), marches=BAYES),
    "attention": OperatorCase(
        make=calls(lambda x, y: F.scaled_dot_product_attention(x, y, y)),
        shapes=(_HEADS, _HEADS),
        marches=BAYES,
        open_batch=True,
    ),
    "attention_masked": OperatorCase(
        make=calls_layer(
            nn.ParameterList([torch.randn(1, 1, 9, 9)]),
            lambda mask, x, y: F.scaled_dot_product_attention(x, y, x, attn_mask=mask[0], scale=0.3),
        ),
        shapes=(_HEADS, _HEADS),
        marches=BAYES,
    ),
    "attention_masked_by_booleans": OperatorCase(
        make=calls_layer(
            nn.ParameterList([nn.Parameter(torch.ones(9, 9).tril().bool(), requires_grad=False)]),
            lambda mask, x, y: F.scaled_dot_product_attention(x, y, x, attn_mask=mask[0]),
        ),
        shapes=(_HEADS, _HEADS),
        marches=BAYES,
    ),
    "attention_masked_by_infinity": OperatorCase(
        make=calls_layer(
            nn.ParameterList([torch.zeros(9, 9).masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf)]),
            lambda mask, x, y: F.scaled_dot_product_attention(x, y, x, attn_mask=mask[0]),
        ),
        shapes=(_HEADS, _HEADS),
        marches=BAYES,
    ),
    "attention_masked_by_comparison": OperatorCase(
        make=calls(lambda x, y: F.scaled_dot_product_attention(x, y, x, attn_mask=(x @ y.transpose(-2, -1)) > -2.0)),
        shapes=(_HEADS, _HEADS),
        marches=BAYES,
    ),
    "multihead_attention_by_position": OperatorCase(
        make=calls_layer(
            nn.MultiheadAttention(16, 4, batch_first=True), lambda layer, x: layer(x, x, x, None, False)[0]
        ),
        shapes=(TOKENS,),
        marches=BAYES,
    ),
    "multihead_attention": OperatorCase(
        make=calls_layer(
            nn.MultiheadAttention(16, 4, batch_first=True), lambda layer, x: layer(x, x, x, need_weights=False)[0]
        ),
        shapes=(TOKENS,),
        marches=BAYES,
        open_batch=True,
    ),
    "div": OperatorCase(make=calls(lambda x, y: x / (torch.sigmoid(y) + 0.5)), shapes=PAIR, marches=BAYES),
    "normalize": OperatorCase(make=calls(lambda x: F.normalize(x, dim=-1)), shapes=(TOKENS,), marches=BAYES),
    "vector_norm": OperatorCase(make=calls(lambda x: x.norm(p=2, dim=(1, 2), keepdim=True)), marches=BAYES),
    "glu": OperatorCase(make=lambda: nn.GLU(1), bits=(8, 16)),
    "prelu": OperatorCase(make=lambda: _random_affine(nn.PReLU(8)), bits=(8, 16), open_batch=True),
    "prelu_one_slope": OperatorCase(make=nn.PReLU, shapes=(TOKENS,), marches=BAYES, open_batch=True),
    "lstm_cell": OperatorCase(
        make=calls_layer(nn.LSTMCell(16, 12), lambda cell, x, h: _both(cell(x, (h, h * 0.5)), 1)),
        shapes=((2, 16), (2, 12)),
        marches=BAYES,
    ),
    "lstm_cell_by_keyword": OperatorCase(
        make=calls_layer(nn.LSTMCell(16, 12), lambda cell, x, h: cell(x, hx=(h, h * 0.5))[0]),
        shapes=((2, 16), (2, 12)),
        marches=BAYES,
    ),
    "lstm": OperatorCase(
        make=calls_layer(nn.LSTM(16, 6, batch_first=True), lambda lstm, x: lstm(x)[0]), shapes=(TOKENS,), marches=BAYES
    ),
    "lstm_two_layers_both_ways": OperatorCase(
        make=calls_layer(
            nn.LSTM(16, 6, num_layers=2, bidirectional=True, dropout=0.2), lambda lstm, x: _both(lstm(x)[1], 2)
        ),
        shapes=((5, 3, 16),),
        marches=BAYES,
    ),
    "lstm_given_states": OperatorCase(
        make=calls_layer(nn.LSTM(16, 6, bias=False, batch_first=True), lambda lstm, x, h: lstm(x, (h, h * 0.5))[0]),
        shapes=(TOKENS, (1, 2, 6)),
        marches=BAYES,
    ),
    "einsum": OperatorCase(
        make=calls(lambda x, y: torch.einsum("byhwc,bwkc->byhwk", x, y)),
        shapes=((2, 3, 4, 5, 8), (2, 5, 6, 8)),
        marches=BAYES,
    ),
    "avg_pool3d_padding_not_counted": OperatorCase(
        make=lambda: nn.AvgPool3d(3, 2, 1, count_include_pad=False), shapes=_VOLUME, marches=BAYES
    ),
    "avg_pool3d_cut_short": OperatorCase(
        make=lambda: nn.AvgPool3d(3, 2, 1, ceil_mode=True), shapes=_VOLUME, marches=BAYES
    ),
    "max_pool3d": OperatorCase(make=lambda: nn.MaxPool3d(3, 2, 1), shapes=_VOLUME, marches=BAYES),
    "avg_pool3d": OperatorCase(make=lambda: nn.AvgPool3d((1, 2, 3)), shapes=_VOLUME, marches=BAYES),
    "global_avg_pool3d": OperatorCase(make=lambda: nn.AdaptiveAvgPool3d(1), shapes=_VOLUME, marches=BAYES),
    "addcmul": OperatorCase(make=calls(lambda x, y: torch.addcmul(x, x, y)), shapes=PAIR),
    "add_constant": OperatorCase(
        make=calls_layer(nn.ParameterList([torch.randn(1, 9, 16)]), lambda position, x: x + position[0]),
        shapes=(TOKENS,),
        marches=BAYES,
        bits=(8, 16),
    ),
    "mul_number_of_a_parameter": OperatorCase(
        make=calls_layer(nn.ParameterList([torch.tensor(0.7)]), lambda gain, x: x * gain[0]), marches=BAYES
    ),
    "mul_constant": OperatorCase(
        make=calls_layer(nn.ParameterList([torch.randn(8, 1, 1)]), lambda scale, x: x * scale[0]), marches=BAYES
    ),
}
