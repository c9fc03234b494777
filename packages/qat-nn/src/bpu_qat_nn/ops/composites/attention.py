"""Attention in known operators: matrix products, softmax, and the projections of nn.MultiheadAttention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import nn

from bpu_fx_fusion import FloatFunctional, MaskedFill, ScaledDotProduct
from bpu_kernels.dtypes import QuantDType, qint8, qint16
from bpu_kernels.march import MarchRow

from ...errors import InputError
from ...op import OpRow, type_problems
from ...qtensor import QTensor
from ..dropout import QATDropout
from ..functional import QATFloatFunctional
from ..select import QATMaskedFill
from ..weighted.linear import QATLinear
from .composite import CompositeOperator, Part, QATComposite, QuantizedComposite
from .copied import copied_linear
from .softmax import SOFTMAX_KERNELS, QATSoftmax

__all__ = ["ROWS"]


class ScaledDotProductOperator(CompositeOperator):
    """``softmax(q @ k.T * scale + mask) @ v``."""

    config: ClassVar[tuple[str, ...]] = ("factor", "drops", "boolean")
    fixed: ClassVar[tuple[str, ...]] = ("drops", "boolean")
    factor: float | None
    """Of the products; None for 1 / sqrt(features)."""
    drops: bool
    boolean: bool
    """Whether the mask tells where to attend; otherwise it is added."""

    def combine(self, *inputs: Any, **options: Any) -> QTensor:
        """Compare queries with keys, and take the values by the result."""
        query, key, value, *rest = inputs
        mask = rest[0] if rest else options.get("attn_mask")
        part: Any = self
        logits = part.logits.matmul(query, key.transpose(-2, -1))
        factor = self.factor if self.factor is not None else int(query.shape[-1]) ** -0.5
        logits = part.scaling.mul_scalar(logits, factor)
        if mask is not None and self.boolean:
            logits = part.masked(logits, mask)
        elif mask is not None:
            logits = part.masked.add(mask, logits)  # the second is widened to 16 bits, so a constant stays one
        attention = part.softmax(logits)
        if self.drops:
            attention = part.dropout(attention)
        result: QTensor = part.weighted.matmul(attention, value)
        return result


class QuantizedScaledDotProduct(ScaledDotProductOperator, QuantizedComposite):
    """Attention of integers."""


class QATScaledDotProduct(ScaledDotProductOperator, QATComposite):
    """Attention under quantization-aware training."""

    quantized = QuantizedScaledDotProduct
    options: ClassVar[frozenset[str]] = frozenset({"attn_mask"})

    def configure(self, source: Any) -> None:
        """Note scale, dropout and kind of mask."""
        self.factor, self.drops, self.boolean = source.scale, source.dropout_p > 0, source.boolean

    def parts(self, source: Any) -> Mapping[str, Part]:
        """The products are of 8 bits; a mask spreads the range, so the masked logits are of 16."""
        fill: Part = (QATMaskedFill, MaskedFill(float("-inf"), inverted=True), None)
        dropout = {"dropout": (QATDropout, nn.Dropout(source.dropout_p), None)} if self.drops else {}
        return {
            "logits": (QATFloatFunctional, FloatFunctional(), qint8),
            "scaling": (QATFloatFunctional, FloatFunctional(), qint8),
            "masked": fill if self.boolean else (QATFloatFunctional, FloatFunctional(), qint16),
            "softmax": (QATSoftmax, nn.Softmax(-1), qint8),
            **dropout,
            "weighted": (QATFloatFunctional, FloatFunctional(), None),
        }

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """int8; matrix products of activations, and 16 bits for the softmax."""
        return [*super().limits(module, row, dtype, inputs), *type_problems([dtype, *inputs], [qint8])]


class MultiheadAttentionOperator(CompositeOperator):
    """Projections, attention of each head, a last projection; inputs (N, L, E), or (L, N, E) without batch_first."""

    config: ClassVar[tuple[str, ...]] = ("num_heads", "batch_first")
    num_heads: int
    batch_first: bool

    def tensors(self, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Return query, key and value of a call, which may give the options of torch's module in any way.

        Raises:
            InputError: a mask is given.
        """
        given = signature(nn.MultiheadAttention.forward).bind(None, *inputs, **options).arguments
        masks = [name for name in ("key_padding_mask", "attn_mask") if given.get(name) is not None]
        if masks or given.get("is_causal"):
            raise InputError(
                f"{self.label} takes no mask, got {', '.join(masks) or 'is_causal'}; linear layers around "
                "torch.nn.functional.scaled_dot_product_attention do"
            )
        return given["query"], given["key"], given["value"]

    def combine(self, *inputs: Any, **options: Any) -> tuple[QTensor, None]:
        """Attend; the weights, torch's second result, are not given."""
        part: Any = self
        projected = [
            self._heads(projection(x)) for projection, x in zip((part.query, part.key, part.value), inputs, strict=True)
        ]
        attended = part.attention(*projected)
        batch, _, length, _ = attended.shape
        joined = attended.transpose(1, 2).reshape([batch, length, -1])
        result = part.out(joined)
        return (result if self.batch_first else result.transpose(0, 1)), None

    def _heads(self, x: Any) -> Any:
        """(N, L, E) -> (N, heads, L, E / heads)."""
        x = x if self.batch_first else x.transpose(0, 1)
        batch, length, features = x.shape
        return x.reshape([batch, length, self.num_heads, features // self.num_heads]).transpose(1, 2)

    def extra_repr(self) -> str:
        """Heads."""
        return f"num_heads={self.num_heads}, batch_first={self.batch_first}"


class QuantizedMultiheadAttention(MultiheadAttentionOperator, QuantizedComposite):
    """Multi-head attention of integers."""

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Attend."""
        return super().forward(*self.tensors(inputs, options))


class QATMultiheadAttention(MultiheadAttentionOperator, QATComposite):
    """Multi-head attention under quantization-aware training."""

    quantized = QuantizedMultiheadAttention
    options: ClassVar[frozenset[str]] = frozenset({"need_weights", "average_attn_weights"})

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Attend."""
        return super().forward(*self.tensors(inputs, options))

    def parts(self, source: Any) -> Mapping[str, Part]:
        """The projections become linear layers, with copies of the weights."""
        return {
            **{name: (QATLinear, layer, qint8) for name, layer in _projections(source).items()},
            "attention": (QATScaledDotProduct, ScaledDotProduct(dropout_p=source.dropout), qint8),
            "out": (QATLinear, source.out_proj, None),
        }

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """int8; no bias_k, bias_v or add_zero_attn; matrix products of activations."""
        found = [*super().limits(module, row, dtype, inputs), *type_problems(inputs, [qint8])]
        if module.bias_k is not None or module.add_zero_attn:
            found.append("add_bias_kv or add_zero_attn")
        return found


def _projections(source: Any) -> dict[str, nn.Module]:
    """Return the linear layers of queries, keys and values."""
    with torch.enable_grad():  # so that a chunk requires a gradient where the whole does
        if source.in_proj_weight is not None:
            weights = source.in_proj_weight.chunk(3)
        else:
            weights = (source.q_proj_weight, source.k_proj_weight, source.v_proj_weight)
        biases: Any = (None,) * 3 if source.in_proj_bias is None else source.in_proj_bias.chunk(3)
    return {name: copied_linear(w, b) for name, w, b in zip(("query", "key", "value"), weights, biases, strict=True)}


ROWS = (
    OpRow(
        name="scaled_dot_product_attention",
        floats=(ScaledDotProduct,),
        qat=QATScaledDotProduct,
        kernels=("matmul", "reinterpret", *SOFTMAX_KERNELS),
        note="Matrix products of 8 bits and a softmax. A mask that is an input goes through a QuantStub. Where the "
        "example inputs, or a comparison, show that it is boolean, it tells where to attend; otherwise it is added, so "
        "it is real, and finite.",
    ),
    OpRow(
        name="MultiheadAttention",
        floats=(nn.MultiheadAttention,),
        qat=QATMultiheadAttention,
        kernels=("linear", "matmul", "reinterpret", "reshape", "transpose", *SOFTMAX_KERNELS),
        note="The second result, the weights, is None. Inputs of (N, L, E): without batch_first the batch would move.",
    ),
)
