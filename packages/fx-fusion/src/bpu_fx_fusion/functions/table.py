"""The table of functions that become modules: what the user writes, and what takes its place."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..modules import attention, drop_path, elementwise, reduction, sampling, selection, spatial
from ..tracing.foreign import foreign_name
from .normalization import NORM_MODULES
from .recipe import (
    AddcmulForm,
    Binary,
    ClampForm,
    CompareForm,
    EinsumForm,
    LayerForm,
    Method,
    ModuleForm,
    NormForm,
    RankedForm,
    Recipe,
    StackForm,
    Step,
    WhereForm,
)


def inverse(number: float) -> float:
    """Return 1 / number; a division by a number becomes a multiplication with this."""
    return 1 / number


_NO_DTYPE = {"dtype": None, "out": None}
_SIGN = Step(to="mul_scalar", number=-1)
_POOL = ("kernel_size", "stride", "padding")
_REDUCTION = ("input", "dim", "keepdim")


def _elementwise(*names: str) -> tuple[Callable[..., Any], ...]:
    """Return the forms `torch.f`, `Tensor.f`, `torch.f_` and `Tensor.f_` of functions, as far as they exist."""
    homes = [(home, name + suffix) for name in names for home in (torch, Tensor) for suffix in ("", "_")]
    return tuple(getattr(home, name) for home, name in homes if hasattr(home, name))


_AT_LEAST, _AT_MOST = (Step(to=elementwise.Clamp, keyword=name) for name in ("min", "max"))
_MAXIMUM = Binary(
    op="maximum", tensors="maximum", number_right=(_AT_LEAST,), number_left=(_AT_LEAST,), fixed={"out": None}
)
_MINIMUM = Binary(
    op="minimum", tensors="minimum", number_right=(_AT_MOST,), number_left=(_AT_MOST,), fixed={"out": None}
)

_ROWS: Final[dict[tuple[Callable[..., Any], ...], Recipe]] = {
    (operator.add, operator.iadd, *_elementwise("add")): Binary(
        op="add",
        tensors="add",
        number_right=(Step(to="add_scalar"),),
        number_left=(Step(to="add_scalar"),),
        fixed={"alpha": 1, "out": None},
    ),
    (operator.sub, operator.isub, *_elementwise("sub", "subtract")): Binary(
        op="sub",
        tensors="sub",
        number_right=(Step(to="add_scalar", number=operator.neg),),
        number_left=(_SIGN, Step(to="add_scalar")),
        fixed={"alpha": 1, "out": None},
    ),
    (operator.mul, operator.imul, *_elementwise("mul", "multiply")): Binary(
        op="mul",
        tensors="mul",
        number_right=(Step(to="mul_scalar"),),
        number_left=(Step(to="mul_scalar"),),
        fixed={"out": None},
    ),
    (operator.truediv, operator.itruediv, *_elementwise("div", "divide", "true_divide")): Binary(
        op="div",
        tensors=elementwise.Div,
        number_right=(Step(to="mul_scalar", number=inverse),),
        number_left=(Step(to=elementwise.Reciprocal), Step(to="mul_scalar")),
        fixed={"rounding_mode": None, "out": None},
    ),
    (operator.matmul, torch.matmul, Tensor.matmul, torch.bmm, Tensor.bmm): Binary(
        op="matmul", tensors="matmul", fixed={"out": None}
    ),
    (torch.maximum, Tensor.maximum): _MAXIMUM,
    (torch.minimum, Tensor.minimum): _MINIMUM,
    (torch.cat, torch.concat, torch.concatenate): Method(op="cat", parameters=("tensors", "dim"), fixed={"out": None}),
    (torch.sum, Tensor.sum): Method(op="sum", parameters=_REDUCTION, required="dim", fixed=_NO_DTYPE),
    (torch.mean, Tensor.mean): Method(op="mean", parameters=_REDUCTION, required="dim", fixed=_NO_DTYPE),
    (operator.neg, *_elementwise("neg", "negative")): Method(
        op="mul_scalar", parameters=("input",), appended=(-1,), fixed={"out": None}
    ),
    (F.relu, *_elementwise("relu")): ModuleForm(op="relu", module=nn.ReLU, parameters=("inplace",)),
    (F.relu6,): ModuleForm(op="relu6", module=nn.ReLU6, parameters=("inplace",)),
    (F.sigmoid, *_elementwise("sigmoid")): ModuleForm(op="sigmoid", module=nn.Sigmoid),
    (F.tanh, *_elementwise("tanh")): ModuleForm(op="tanh", module=nn.Tanh),
    (F.silu,): ModuleForm(op="silu", module=nn.SiLU, parameters=("inplace",)),
    (F.gelu,): ModuleForm(op="gelu", module=nn.GELU, parameters=("approximate",)),
    (F.hardswish,): ModuleForm(op="hardswish", module=nn.Hardswish, parameters=("inplace",)),
    (F.hardsigmoid,): ModuleForm(op="hardsigmoid", module=nn.Hardsigmoid, parameters=("inplace",)),
    (F.leaky_relu,): ModuleForm(op="leaky_relu", module=nn.LeakyReLU, parameters=("negative_slope", "inplace")),
    (F.elu,): ModuleForm(op="elu", module=nn.ELU, parameters=("alpha", "inplace")),
    (F.selu, torch.selu): ModuleForm(op="selu", module=nn.SELU, parameters=("inplace",)),
    (F.celu, torch.celu): ModuleForm(op="celu", module=nn.CELU, parameters=("alpha", "inplace")),
    (F.mish,): ModuleForm(op="mish", module=nn.Mish, parameters=("inplace",)),
    (F.softsign,): ModuleForm(op="softsign", module=nn.Softsign),
    (F.logsigmoid,): ModuleForm(op="logsigmoid", module=nn.LogSigmoid),
    (F.softplus,): ModuleForm(op="softplus", module=nn.Softplus, parameters=("beta", "threshold")),
    (F.hardtanh,): ModuleForm(op="hardtanh", module=nn.Hardtanh, parameters=("min_val", "max_val", "inplace")),
    (F.softmax,): ModuleForm(
        op="softmax", module=nn.Softmax, parameters=("dim",), fixed={"_stacklevel": 3, "dtype": None}
    ),
    (torch.softmax, Tensor.softmax): ModuleForm(op="softmax", module=nn.Softmax, parameters=("dim",), fixed=_NO_DTYPE),
    _elementwise("clamp", "clip"): ClampForm(fixed={"out": None}),
    _elementwise("clamp_min"): ClampForm(parameters=("min",), fixed={"out": None}),
    _elementwise("clamp_max"): ClampForm(parameters=("max",), fixed={"out": None}),
    (F.dropout,): ModuleForm(
        op="dropout", module=nn.Dropout, parameters=("p", "training", "inplace"), training_flag="training"
    ),
    (F.dropout2d,): ModuleForm(
        op="dropout2d", module=nn.Dropout2d, parameters=("p", "training", "inplace"), training_flag="training"
    ),
    (F.max_pool2d,): ModuleForm(
        op="max_pool2d",
        module=nn.MaxPool2d,
        parameters=(*_POOL, "dilation", "ceil_mode"),
        fixed={"return_indices": False},
    ),
    (F.avg_pool2d,): ModuleForm(
        op="avg_pool2d",
        module=nn.AvgPool2d,
        parameters=(*_POOL, "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    (F.adaptive_avg_pool2d,): ModuleForm(
        op="adaptive_avg_pool2d", module=nn.AdaptiveAvgPool2d, parameters=("output_size",)
    ),
    (F.adaptive_max_pool2d,): ModuleForm(
        op="adaptive_max_pool2d",
        module=nn.AdaptiveMaxPool2d,
        parameters=("output_size",),
        fixed={"return_indices": False},
    ),
    (F.unfold,): ModuleForm(op="unfold", module=nn.Unfold, parameters=("kernel_size", "dilation", "padding", "stride")),
    (F.fold,): ModuleForm(
        op="fold", module=nn.Fold, parameters=("output_size", "kernel_size", "dilation", "padding", "stride")
    ),
    (F.interpolate,): ModuleForm(  # F.upsample and its relatives call this one
        op="interpolate",
        module=spatial.Interpolate,
        parameters=("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor"),
        at_call=("size", "scale_factor"),
        fixed={"antialias": False},
    ),
    (F.grid_sample,): ModuleForm(
        op="grid_sample",
        module=sampling.GridSample,
        parameters=("grid", "mode", "padding_mode", "align_corners"),
        at_call=("grid",),
    ),
    (F.pad,): ModuleForm(op="pad", module=spatial.Pad, parameters=("pad", "mode", "value"), at_call=("pad",)),
    (operator.pow, operator.ipow, *_elementwise("pow")): ModuleForm(
        op="pow", module=elementwise.Pow, parameters=("exponent",), fixed={"out": None}
    ),
    (torch.amax, Tensor.amax): ModuleForm(
        op="amax", module=reduction.Amax, parameters=("dim", "keepdim"), fixed={"out": None}
    ),
    (torch.amin, Tensor.amin): ModuleForm(
        op="amin", module=reduction.Amin, parameters=("dim", "keepdim"), fixed={"out": None}
    ),
    **{
        (getattr(operator, name), *_elementwise(*names)): CompareForm(op=name, module=module)
        for name, module, names in (
            ("eq", selection.Eq, ("eq",)),
            ("ge", selection.Ge, ("ge", "greater_equal")),
            ("gt", selection.Gt, ("gt", "greater")),
            ("le", selection.Le, ("le", "less_equal")),
            ("lt", selection.Lt, ("lt", "less")),
            ("ne", selection.Ne, ("ne", "not_equal")),
        )
    },
    (torch.where, Tensor.where): WhereForm(),
    (torch.masked_fill, Tensor.masked_fill, Tensor.masked_fill_): ModuleForm(
        op="masked_fill", module=selection.MaskedFill, parameters=("mask", "value"), at_call=("mask",)
    ),
    (torch.max, Tensor.max): RankedForm(op="max", parameters=_REDUCTION, pairwise=_MAXIMUM, fixed={"out": None}),
    (torch.min, Tensor.min): RankedForm(
        op="min", parameters=_REDUCTION, pairwise=_MINIMUM, largest=False, fixed={"out": None}
    ),
    (torch.argmax, Tensor.argmax): RankedForm(op="argmax", parameters=_REDUCTION, gives=("indices",)),
    (torch.argmin, Tensor.argmin): RankedForm(op="argmin", parameters=_REDUCTION, gives=("indices",), largest=False),
    (torch.topk, Tensor.topk): RankedForm(
        op="topk", parameters=("input", "k", "dim", "largest", "sorted"), required="k", fixed={"out": None}
    ),
    (torch.sort, Tensor.sort): RankedForm(
        op="sort", parameters=("input", "dim", "descending", "stable"), required=None, fixed={"out": None}
    ),
    (torch.gather, Tensor.gather): ModuleForm(
        op="gather",
        module=selection.Gather,
        parameters=("dim", "index"),
        at_call=("index",),
        fixed={"sparse_grad": False, "out": None},
    ),
    (torch.abs, Tensor.abs, Tensor.abs_, operator.abs): ModuleForm(
        op="abs", module=elementwise.Abs, fixed={"out": None}
    ),
    (torch.stack,): StackForm(),
    (torch.addcmul, Tensor.addcmul): AddcmulForm(),
    (torch.einsum,): EinsumForm(),
    (F.normalize,): ModuleForm(
        op="normalize", module=reduction.Normalize, parameters=("p", "dim", "eps"), only={"p": 2}, fixed={"out": None}
    ),
    (torch.norm, Tensor.norm): ModuleForm(
        op="norm", module=reduction.VectorNorm, parameters=("p", "dim", "keepdim"), only={"p": 2}, fixed=_NO_DTYPE
    ),
    (torch.linalg.vector_norm,): ModuleForm(
        op="norm", module=reduction.VectorNorm, parameters=("ord", "dim", "keepdim"), only={"ord": 2}, fixed=_NO_DTYPE
    ),
    (torch.linalg.norm,): ModuleForm(  # with an order and two axes it is the norm of a matrix
        op="norm",
        module=reduction.VectorNorm,
        parameters=("ord", "dim", "keepdim"),
        only={"ord": None},
        fixed=_NO_DTYPE,
    ),
    (F.glu,): ModuleForm(op="glu", module=nn.GLU, parameters=("dim",)),
    (F.scaled_dot_product_attention,): ModuleForm(
        op="attention",
        module=attention.ScaledDotProduct,
        parameters=("key", "value", "attn_mask", "dropout_p", "scale"),
        at_call=("key", "value", "attn_mask"),
        fixed={"is_causal": False, "enable_gqa": False},
    ),
    (torch.square, Tensor.square, Tensor.square_): ModuleForm(
        op="pow", module=elementwise.Pow, constants={"exponent": 2}
    ),
    **{
        _elementwise(name): ModuleForm(op=name, module=module, fixed={"out": None})
        for name, module in {
            "acos": elementwise.Acos,
            "acosh": elementwise.Acosh,
            "asin": elementwise.Asin,
            "asinh": elementwise.Asinh,
            "atan": elementwise.Atan,
            "atanh": elementwise.Atanh,
            "ceil": elementwise.Ceil,
            "cos": elementwise.Cos,
            "cosh": elementwise.Cosh,
            "erf": elementwise.Erf,
            "exp": elementwise.Exp,
            "floor": elementwise.Floor,
            "log": elementwise.HardLog,
            "reciprocal": elementwise.Reciprocal,
            "rsqrt": elementwise.Rsqrt,
            "sin": elementwise.Sin,
            "sinh": elementwise.Sinh,
            "sqrt": elementwise.Sqrt,
            "tan": elementwise.Tan,
        }.items()
    },
}

_LAYERS: Final[dict[Callable[..., Any], Recipe]] = {
    F.prelu: LayerForm(op="prelu", layer=nn.PReLU),
    F.linear: LayerForm(op="linear", layer=nn.Linear),
    F.conv2d: LayerForm(op="conv2d", layer=nn.Conv2d),
    F.conv3d: LayerForm(op="conv3d", layer=nn.Conv3d),
    F.conv_transpose2d: LayerForm(op="conv_transpose2d", layer=nn.ConvTranspose2d),
}

_NORM_FUNCTIONS: Final[dict[Callable[..., Any], Recipe]] = {
    getattr(home, name): NormForm(op=name, module=module)
    for name, module in NORM_MODULES.items()
    for home in (F, torch)
    if home is F or name in ("layer_norm", "group_norm")
}

RECIPES: Final[Mapping[Callable[..., Any], Recipe]] = {
    **{function: recipe for functions, recipe in _ROWS.items() for function in functions},
    **_LAYERS,
    **_NORM_FUNCTIONS,
}
"""What becomes of each function, operator and tensor method. Functions without a row stay as they are: layout
functions (flatten, reshape, permute, getitem, ...)."""

_FOREIGN: Final[Mapping[tuple[str, str], Recipe]] = {
    ("torchvision.ops.roi_align", "roi_align"): ModuleForm(
        op="roi_align",
        module=sampling.RoIAlign,
        parameters=("boxes", "output_size", "spatial_scale", "sampling_ratio", "aligned"),
        at_call=("boxes",),
    ),
    ("torchvision.ops.stochastic_depth", "stochastic_depth"): ModuleForm(
        op="drop_path", module=drop_path.DropPath, parameters=("p", "mode", "training"), training_flag="training"
    ),
    ("torchvision.ops.drop_block", "drop_block2d"): ModuleForm(
        op="drop_block",
        module=drop_path.DropBlock,
        parameters=("p", "block_size", "inplace", "eps", "training"),
        only={"inplace": False},
        training_flag="training",
    ),
}
"""The same for functions of packages that need not be installed, by (module, name)."""


def recipe_of(function: Any) -> Recipe | None:
    """Return what becomes of a function; None if it stays as it is."""
    return RECIPES.get(function) or _FOREIGN.get(foreign_name(function) or ("", ""))
