"""The table of functions that become modules: what the user writes, and what takes its place."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import float_modules as fm
from . import sampling_modules
from . import selection_modules as sm
from .functional_norm import NORM_MODULES


def inverse(number: float) -> float:
    """Return 1 / number; a division by a number becomes a multiplication with this."""
    return 1 / number


@dataclass(frozen=True, kw_only=True)
class Step:
    """One module of a chain that computes an operator between a tensor and a number."""

    to: str | type[nn.Module]
    """A method of FloatFunctional that takes the tensor and a number, or a module that takes the tensor."""

    number: Callable[[float], float] | float | None = None
    """The number for the method: a constant, computed from the operator's number, or that number itself if None."""


@dataclass(frozen=True, kw_only=True)
class Binary:
    """An operator between two tensors, or between a tensor and a number."""

    op: str
    """Name used for the generated module, unless it is a step's method."""

    tensors: str | type[nn.Module]
    """For two tensors: a method of FloatFunctional, or a module."""

    number_right: tuple[Step, ...] = ()
    """For `tensor op number`; empty if that stays a function."""

    number_left: tuple[Step, ...] = ()
    """For `number op tensor`; empty if that stays a function."""

    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments, and the only value for which the replacement is right."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A function that becomes a method of FloatFunctional with the same arguments."""

    op: str
    parameters: tuple[str, ...]
    required: str | None = None
    """An argument without which the call stays a function."""

    appended: tuple[float, ...] = ()
    """Arguments that the function implies."""

    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModuleForm:
    """A function that becomes a module; its arguments after the first go to the constructor under the same name."""

    op: str
    module: type[nn.Module]
    parameters: tuple[str, ...] = ()
    """Names of the arguments after the first, in order. Those of the constructor, unless listed otherwise below."""

    at_call: tuple[str, ...] = ()
    """Arguments that may be computed at run time; then the module's call receives them."""

    only: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that need not be given, and the only value for which the replacement is right."""

    training_flag: str | None = None
    """The argument that says whether the model is being trained, which the module knows by itself."""

    constants: Mapping[str, Any] = field(default_factory=dict)
    """Constructor arguments that the function implies."""

    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LayerForm:
    """A function that applies a layer's parameters; it becomes that layer if they are parameters of a module."""

    op: str
    layer: type[nn.Module]
    """A key of LAYER_PARAMETERS."""


@dataclass(frozen=True, kw_only=True)
class NormForm:
    """A function that normalizes; it becomes the module with the same tensors."""

    op: str
    """A key of NORMS."""

    module: type[nn.Module]
    """What it becomes; BatchNorm in as many dimensions as the module has whose forward calls it."""


@dataclass(frozen=True, kw_only=True)
class StackForm:
    """A function that joins tensors along a new axis: each gets the axis, then they are joined."""

    op: str = "cat"


@dataclass(frozen=True, kw_only=True)
class AddcmulForm:
    """A function that multiplies two tensors and adds a third."""

    op: str = "add"


@dataclass(frozen=True, kw_only=True)
class EinsumForm:
    """A sum of products of two tensors by letters: a matrix product between movements."""

    op: str = "matmul"


@dataclass(frozen=True, kw_only=True)
class CompareForm:
    """A comparison of two tensors, or of a tensor with a number."""

    op: str
    module: type[sm.Comparison]


@dataclass(frozen=True, kw_only=True)
class WhereForm:
    """A choice between two tensors, or between a tensor and a number."""

    op: str = "where"
    module: type[nn.Module] = sm.Where


@dataclass(frozen=True, kw_only=True)
class RankedForm:
    """A function that finds the largest (or smallest) elements along an axis: their values and their indices."""

    op: str
    parameters: tuple[str, ...]
    required: str | None = "dim"
    """An argument without which the call stays a function."""

    largest: bool = True
    """Which end, unless an argument `largest` or `descending` says it."""

    gives: tuple[str, ...] = ("values", "indices")
    """What it returns; ("indices",) for a tensor of indices alone."""

    pairwise: str | None = None
    """The method of FloatFunctional that it means for two tensors."""

    fixed: Mapping[str, Any] = field(default_factory=dict)
    module: type[nn.Module] = sm.TopIndices


Recipe = (
    StackForm
    | AddcmulForm
    | EinsumForm
    | Binary
    | Method
    | ModuleForm
    | LayerForm
    | NormForm
    | CompareForm
    | WhereForm
    | RankedForm
)

_NO_DTYPE = {"dtype": None, "out": None}
_SIGN = Step(to="mul_scalar", number=-1)
_POOL = ("kernel_size", "stride", "padding")
_REDUCTION = ("input", "dim", "keepdim")


def _elementwise(*names: str) -> tuple[Callable[..., Any], ...]:
    """Return the forms `torch.f`, `Tensor.f`, `torch.f_` and `Tensor.f_` of functions, as far as they exist."""
    homes = [(home, name + suffix) for name in names for home in (torch, Tensor) for suffix in ("", "_")]
    return tuple(getattr(home, name) for home, name in homes if hasattr(home, name))


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
        tensors=fm.Div,
        number_right=(Step(to="mul_scalar", number=inverse),),
        number_left=(Step(to=fm.Reciprocal), Step(to="mul_scalar")),
        fixed={"rounding_mode": None, "out": None},
    ),
    (operator.matmul, torch.matmul, Tensor.matmul, torch.bmm, Tensor.bmm): Binary(
        op="matmul", tensors="matmul", fixed={"out": None}
    ),
    (torch.maximum, Tensor.maximum): Binary(op="maximum", tensors="maximum", fixed={"out": None}),
    (torch.minimum, Tensor.minimum): Binary(op="minimum", tensors="minimum", fixed={"out": None}),
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
    (F.softplus,): ModuleForm(op="softplus", module=nn.Softplus, parameters=("beta", "threshold")),
    (F.hardtanh,): ModuleForm(op="hardtanh", module=nn.Hardtanh, parameters=("min_val", "max_val", "inplace")),
    (F.softmax,): ModuleForm(
        op="softmax", module=nn.Softmax, parameters=("dim",), fixed={"_stacklevel": 3, "dtype": None}
    ),
    (torch.softmax, Tensor.softmax): ModuleForm(op="softmax", module=nn.Softmax, parameters=("dim",), fixed=_NO_DTYPE),
    (*_elementwise("clamp", "clip"),): ModuleForm(
        op="clamp", module=fm.Clamp, parameters=("min", "max"), at_call=("min", "max"), fixed={"out": None}
    ),
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
        module=fm.Interpolate,
        parameters=("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor"),
        at_call=("size", "scale_factor"),
        fixed={"antialias": False},
    ),
    (F.grid_sample,): ModuleForm(
        op="grid_sample",
        module=sampling_modules.GridSample,
        parameters=("grid", "mode", "padding_mode", "align_corners"),
        at_call=("grid",),
    ),
    (F.pad,): ModuleForm(op="pad", module=fm.Pad, parameters=("pad", "mode", "value"), at_call=("pad",)),
    (operator.pow, operator.ipow, *_elementwise("pow")): ModuleForm(
        op="pow", module=fm.Pow, parameters=("exponent",), fixed={"out": None}
    ),
    (torch.amax, Tensor.amax): ModuleForm(
        op="amax", module=fm.Amax, parameters=("dim", "keepdim"), fixed={"out": None}
    ),
    (torch.amin, Tensor.amin): ModuleForm(
        op="amin", module=fm.Amin, parameters=("dim", "keepdim"), fixed={"out": None}
    ),
    **{
        (getattr(operator, name), *_elementwise(*names)): CompareForm(op=name, module=module)
        for name, module, names in (
            ("eq", sm.Eq, ("eq",)),
            ("ge", sm.Ge, ("ge", "greater_equal")),
            ("gt", sm.Gt, ("gt", "greater")),
            ("le", sm.Le, ("le", "less_equal")),
            ("lt", sm.Lt, ("lt", "less")),
            ("ne", sm.Ne, ("ne", "not_equal")),
        )
    },
    (torch.where, Tensor.where): WhereForm(),
    (torch.masked_fill, Tensor.masked_fill, Tensor.masked_fill_): ModuleForm(
        op="masked_fill", module=sm.MaskedFill, parameters=("mask", "value"), at_call=("mask",)
    ),
    (torch.max, Tensor.max): RankedForm(op="max", parameters=_REDUCTION, pairwise="maximum", fixed={"out": None}),
    (torch.min, Tensor.min): RankedForm(
        op="min", parameters=_REDUCTION, pairwise="minimum", largest=False, fixed={"out": None}
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
        module=sm.Gather,
        parameters=("dim", "index"),
        at_call=("index",),
        fixed={"sparse_grad": False, "out": None},
    ),
    (torch.abs, Tensor.abs, Tensor.abs_, operator.abs): ModuleForm(op="abs", module=fm.Abs, fixed={"out": None}),
    (torch.stack,): StackForm(),
    (torch.addcmul, Tensor.addcmul): AddcmulForm(),
    (torch.einsum,): EinsumForm(),
    (F.normalize,): ModuleForm(
        op="normalize", module=fm.Normalize, parameters=("p", "dim", "eps"), only={"p": 2}, fixed={"out": None}
    ),
    (torch.norm, Tensor.norm): ModuleForm(
        op="norm", module=fm.VectorNorm, parameters=("p", "dim", "keepdim"), only={"p": 2}, fixed=_NO_DTYPE
    ),
    (torch.linalg.vector_norm,): ModuleForm(
        op="norm", module=fm.VectorNorm, parameters=("ord", "dim", "keepdim"), only={"ord": 2}, fixed=_NO_DTYPE
    ),
    (torch.linalg.norm,): ModuleForm(  # with an order and two axes it is the norm of a matrix
        op="norm", module=fm.VectorNorm, parameters=("ord", "dim", "keepdim"), only={"ord": None}, fixed=_NO_DTYPE
    ),
    (F.glu,): ModuleForm(op="glu", module=nn.GLU, parameters=("dim",)),
    (F.scaled_dot_product_attention,): ModuleForm(
        op="attention",
        module=fm.ScaledDotProduct,
        parameters=("key", "value", "attn_mask", "dropout_p", "scale"),
        at_call=("key", "value", "attn_mask"),
        fixed={"is_causal": False, "enable_gqa": False},
    ),
    (torch.square, Tensor.square, Tensor.square_): ModuleForm(op="pow", module=fm.Pow, constants={"exponent": 2}),
    **{
        _elementwise(name): ModuleForm(op=name, module=module, fixed={"out": None})
        for name, module in {
            "acos": fm.Acos,
            "acosh": fm.Acosh,
            "asin": fm.Asin,
            "asinh": fm.Asinh,
            "atan": fm.Atan,
            "atanh": fm.Atanh,
            "ceil": fm.Ceil,
            "cos": fm.Cos,
            "cosh": fm.Cosh,
            "erf": fm.Erf,
            "exp": fm.Exp,
            "floor": fm.Floor,
            "log": fm.HardLog,
            "reciprocal": fm.Reciprocal,
            "rsqrt": fm.Rsqrt,
            "sin": fm.Sin,
            "sinh": fm.Sinh,
            "sqrt": fm.Sqrt,
            "tan": fm.Tan,
        }.items()
    },
}

_LAYERS: Final[dict[Callable[..., Any], Recipe]] = {
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
