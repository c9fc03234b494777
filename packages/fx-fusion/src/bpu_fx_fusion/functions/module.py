"""Replace functions by the modules that do the same: activations, pooling, layers on given weights, normalizations."""

from __future__ import annotations

from torch.fx import Node

from ..errors import UsageError
from ..graph.constant_value import constant_value
from ..graph.nodes import contains_node
from ..modules.attention import ScaledDotProduct
from .layer import LAYER_PARAMETERS, make_layer
from .normalization import NORM_PARAMETERS, NORMS, shape_behind_layer
from .recipe import LayerForm, ModuleForm, NormForm
from .replacement import Call

__all__ = ["layer", "module_form", "norm"]


def module_form(call: Call, recipe: ModuleForm) -> Node:
    """Call a module that has the function's arguments as attributes, but for those that only the call knows."""
    bound = call.bind(("input", *recipe.parameters), recipe.fixed)
    first: Node = bound.pop("input")
    if not call.is_tensor(first):
        call.keep("its first argument is not a tensor")
    for name, value in recipe.only.items():
        if (given := bound.pop(name, value)) != value:
            call.keep(f"{name}={given}")
    if call.overwritten is not None and "inplace" in recipe.parameters:
        bound["inplace"] = True
    if recipe.training_flag:
        trains = bound.pop(recipe.training_flag, True)
        if trains is False and call.owner_module.training:
            return first  # switched off for good
        if trains != call.owner_module.training:
            call.keep("its training flag does not follow the model's")
    bound = {name: value for name, value in bound.items() if value is not None or name not in recipe.at_call}
    computed = {name: value for name, value in bound.items() if contains_node(value)}
    for name in computed:
        if name not in recipe.at_call:
            call.keep(f"{name} is computed at run time")
        del bound[name]
    try:
        made = recipe.module(**bound, **recipe.constants)
    except UsageError as error:
        call.keep(str(error).rstrip("."))
    if isinstance(made, ScaledDotProduct):
        made.boolean = call.is_boolean(computed.get("attn_mask"))
    return call.call_module(recipe.op, made, first, **computed)


def layer(call: Call, recipe: LayerForm) -> Node:
    """Make a layer of the weight and the bias that the function is given."""
    bound = call.bind(("input", *LAYER_PARAMETERS[recipe.layer]), {})
    first, weight, bias = bound.pop("input"), bound.pop("weight", None), bound.pop("bias", None)
    if contains_node(bound):
        call.keep("its stride, padding, dilation or groups are computed at run time")
    parameters = [None if each is None else call.parameter(each) for each in (weight, bias)]
    if parameters[0] is None:
        call.keep("no weight is given")
    return call.call_module(recipe.op, make_layer(recipe.layer, parameters[0], parameters[1], bound), first)


def norm(call: Call, recipe: NormForm) -> Node:
    """Make a normalization of the weight and the statistics that the function is given."""
    bound = call.bind(("input", *NORM_PARAMETERS[recipe.op]), {"cudnn_enabled": True})
    first = bound.pop("input")
    given = {name: constant_value(call.gm, value) for name, value in bound.items()}
    if any(value is None and bound[name] is not None for name, value in given.items()):
        call.keep("its weight or statistics are computed from the model's inputs")
    if recipe.op == "batch_norm" and given.get("running_mean") is None:
        call.keep("it has no running statistics")
    if given.get("training", False) != (call.owner_module.training and "training" in given):
        call.keep("its training flag does not follow the model's")
    if recipe.op == "instance_norm" and not given.get("use_input_stats", True):
        call.keep("it does not normalize by its input's statistics")
    shape = call.node.meta.get("example_shape")
    if shape is None and recipe.op == "batch_norm":
        shape = shape_behind_layer(first, dict(call.gm.named_modules(remove_duplicate=False)))
    made = NORMS[recipe.op](given, call.owner_module, shape)
    if made is None:
        call.keep("the number of its input's axes is not known without example inputs")
    return call.call_module(recipe.op, made, first)
