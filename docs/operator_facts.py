"""What the packages' tables say about operators, brought together for docs/operators.md."""

from __future__ import annotations

import ast
import inspect
import json
import operator
import pkgutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bpu_fx_fusion import RECIPES, FloatFunctional, fuse_fx
from bpu_kernels import MarchRow, qint16, qint32
from bpu_kernels.golden import KERNEL_OF
from bpu_qat_nn import OPS
from bpu_qat_nn.flow import called_module
from bpu_qat_nn.ops.weighted.layer import WeightedQAT
from bpu_qat_nn.testing import CASES
from bpu_qat_nn.torch_ao import own_type

__all__ = ["Seen", "field_summaries", "golden_cases", "module_name", "seen", "target", "torch_ao_names", "written"]

GOLDEN = Path(__file__).parent.parent / "packages" / "bpu-kernels" / "tests" / "golden"

SYMBOLS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "matmul": "@",
    "pow": "**",
    "eq": "==",
    "ge": ">=",
    "gt": ">",
    "le": "<=",
    "lt": "<",
    "ne": "!=",
}
"""Function of the module operator -> what people write."""

TORCH_AO = ("torch.ao.quantization.QuantStub", "torch.ao.quantization.DeQuantStub")
"""Classes of torch.ao that users' models contain."""


def symbol(function: Callable[..., Any]) -> str | None:
    """Return the operator that a function is, such as ``+``; None if it is none."""
    name = function.__name__
    return SYMBOLS.get(name) if getattr(operator, name, None) is function else None


def is_in_place(function: Callable[..., Any]) -> bool:
    """Whether a function is the in-place form of another: ``relu_``, ``x += y``."""
    name = function.__name__
    return name.endswith("_") or (getattr(operator, name, None) is function and name[1:] in SYMBOLS)


def function_name(function: Callable[..., Any]) -> str:
    """Return a function as people write it: ``x + y``, ``F.relu``, ``torch.add``, ``Tensor.add``."""
    name = function.__name__
    if getattr(operator, name, None) is function:
        return {"neg": "-x", "abs": "abs(x)"}.get(name) or f"x {symbol(function)} y"
    homes = {"F": F, "torch": torch, "Tensor": torch.Tensor, "torch.linalg": torch.linalg}
    names = (name, name.removeprefix("linalg_"), name.replace("_", ""))  # F.logsigmoid is called log_sigmoid
    return next(
        f"{home}.{each}"
        for home, names_of in homes.items()
        for each in names
        if getattr(names_of, each, None) is function
    )


def module_name(kind: type[nn.Module]) -> str:
    """Return a module type as users import it."""
    home = "nn" if getattr(nn, kind.__name__, None) is kind else kind.__module__.split(".")[0]
    return f"{home}.{kind.__name__}"


def torch_ao_names(kind: type[nn.Module]) -> list[str]:
    """Return the classes of torch.ao that a module type stands for."""
    return [path for path in TORCH_AO if own_type(pkgutil.resolve_name(path)) is kind]


def target(recipe: Any) -> Any:
    """Return what a row of RECIPES makes of a function: a module type, or the name of a method of FloatFunctional."""
    named = [getattr(recipe, name, None) for name in ("tensors", "module", "layer")]
    return next((each for each in named if each is not None), recipe.op)


def written(wanted: type[nn.Module] | str) -> list[str]:
    """Return what people write that becomes a module type or a method of FloatFunctional, in-place forms left out."""
    found: dict[str, None] = {}
    for function, recipe in RECIPES.items():
        if is_in_place(function):
            continue
        if target(recipe) == wanted:
            found[function_name(function)] = None
        for side, form in (("number_right", "x {} 2"), ("number_left", "2 {} x")):
            if symbol(function) and any(step.to == wanted for step in getattr(recipe, side, ())):
                found[form.format(symbol(function))] = None
    return list(found)


@dataclass
class Seen:
    """Where an operator occurs in CASES: names of cases, and the float modules that stand for it in them."""

    cases: list[str] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)

    def types(self, row: MarchRow) -> list[str]:
        """Return the activation types that the cases cover on a march."""
        bits = {n for name in self.cases if row.march in CASES[name].marches for n in CASES[name].bits}
        return [f"int{n}" for n in sorted(bits) if n == 8 or qint16 in row.activations]

    def takes_wide_output(self, row: MarchRow) -> bool:
        """Whether one of the modules may have an int32 output on a march."""
        pairs = [(OPS[type(module)].qat, module) for module in self.modules]
        return any(issubclass(qat, WeightedQAT) and not qat.limits(module, row, qint32) for qat, module in pairs)


@cache
def seen() -> Mapping[str, Seen]:
    """Return where operators occur, by the name of their row, or by ``FloatFunctional.method``."""
    found: dict[str, Seen] = {}
    for name, case in CASES.items():
        gm = fuse_fx(case.model())
        modules = dict(gm.named_modules(remove_duplicate=False))
        for node in gm.graph.nodes:
            called = called_module(node, modules)
            if called is None or type(called[1]) not in OPS:
                continue
            row = OPS[type(called[1])].name
            entry = found.setdefault(f"{row}.{node.target}" if type(called[1]) is FloatFunctional else row, Seen())
            entry.modules.append(called[1])
            if name not in entry.cases:
                entry.cases.append(name)
    return found


@cache
def golden_cases() -> Mapping[str, Counter[str]]:
    """Return the number of recorded cases of the vendor's simulator: kernel -> march -> count."""
    found: dict[str, Counter[str]] = {}
    for path in sorted(GOLDEN.glob("*/*.npz")):
        with np.load(path, allow_pickle=False) as file:
            for key in (key for key in file.files if key.endswith("/params")):
                case = key.removesuffix("params")
                arrays = {name.removeprefix(case): file[name] for name in file.files if name.startswith(case)}
                parameters = json.loads(str(arrays["params"]))
                if parameters["op"] in KERNEL_OF:
                    kernel = KERNEL_OF[parameters["op"]](parameters, arrays).name
                    found.setdefault(kernel, Counter())[path.parent.name] += 1
    return found


def field_summaries(cls: type) -> dict[str, str]:
    """Return the docstrings of a dataclass's fields, which its source alone has."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, after in zip(definition.body, definition.body[1:], strict=False):
        documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and documented:
            found[statement.target.id] = str(ast.literal_eval(after.value))  # type: ignore[attr-defined]
    return found
