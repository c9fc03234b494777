"""Writes docs/operators.md from the tables of the packages; with ``--check``, says whether the page is up to date."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from operator_facts import Seen, field_summaries, golden_cases, module_name, seen, target, torch_ao_names, written

from bpu_fx_fusion import RECIPES, FusedModule
from bpu_kernels import KERNELS, MARCHES, MarchRow, qint8
from bpu_kernels.march import Limit
from bpu_qat_nn import MOVES, OPS, ROWS, OpRow
from bpu_qat_nn.ops.functional import METHODS

PAGE = Path(__file__).parent / "operators.md"

SCALAR_METHODS = {
    "add_scalar": ("lut8", "lut16", "rescale"),
    "mul_scalar": ("reinterpret", "lut8", "lut16"),
    "cat": ("concat", "rescale", "lut8"),
}
"""Methods of FloatFunctional that METHODS does not hold, since they take more than tensors -> their kernels."""

INTRODUCTION = """\
# Operators

<!-- Written by docs/generate_operators.py from the packages' tables: edit those, then run it. -->

What may stand between a QuantStub and a DeQuantStub: what it becomes, on which march, within which limits.

- **Float forms** are looked up by exact type. Fused forms come out of [fusion](guides/fusion.md). What is **written**
  becomes the float form when a model is traced; in-place forms (`x += y`, `relu_`) do as well.
- **Kernels** are the [integer operators](#kernels) that a Program holds.
- **Types** are those of the activations that tests cover. int16 needs a qconfig with 16-bit activations, int32 output a
  qconfig without activation part: [](guides/high-precision-and-int16.md).
- **Limits** are held before anything is replaced. The numbers are those of the [marches](#limits-of-the-marches).
- **Verified by** names cases of `bpu_qat_nn.testing.CASES`. For each case, march and type the tests compare the model
  in VALIDATION state, the converted model, and its Program on numpy, after calibration and after training. Every
  integer is equal. To run one: `pytest packages/qat-nn packages/deploy-tools -k CASE`.
"""

MOVING = """\
These functions and methods only move elements, so scale and type pass through them; no module is needed. `nn.Flatten`,
`nn.Unflatten` and `nn.Identity` are moves as well. A march may lack the kernel that a movement needs
(`transpose` on bernoulli2): `lower` then refuses the model and names the place.
"""

KERNEL_TEXT = """\
A kernel is an integer operator: its parameters, its reference on numpy, its shape rule and its limits, in one class of
`bpu_kernels.ops`. Numbers in brackets are equations of [](numerics.md). The last columns count recorded cases of the
vendor's simulator that the reference equals, every value; kernels without any only move or rename integers, or were
never recorded (conv3d). The exact torch form of every kernel is compared with the reference on random cases.
"""

LIMITS_TEXT = """\
`bpu_kernels.MARCHES`; its sources are in [](numerics.md). In brackets: **D** documented by the vendor's toolkit, **M**
measured on its simulator. Where the documented and the accepted set differ, the row holds the stricter one.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(names: Iterable[str]) -> str:
    """Return names as code, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def summary(documented: Any) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())


def by_march(texts: dict[str, str]) -> str:
    """Return texts of marches, joined where they are equal: ``bernoulli2: a; bayes, bayes-e: b``."""
    joined: dict[str, list[str]] = {}
    for march, text in texts.items():
        joined.setdefault(text, []).append(march)
    return "; ".join(f"{', '.join(marches)}: {text}" for text, marches in joined.items())


def types(found: Seen) -> str:
    """Return the types of an operator on every march."""

    def on(row: MarchRow) -> str:
        wide = ["int32 output"] if found.takes_wide_output(row) else []
        return ", ".join([*found.types(row), *wide]) or "none"

    return by_march({str(march): on(row) for march, row in MARCHES.items()})


def entry(name: str, facts: dict[str, str]) -> str:
    """Return the section of an operator; facts without text are left out."""
    return "\n".join([f"### {name}", "", *(f"- **{what}:** {text}" for what, text in facts.items() if text)])


def operators() -> Iterator[str]:
    """Yield a section for every name in ROWS; FloatFunctional has one for each of its methods instead."""
    for name in dict.fromkeys(row.name for row in ROWS):
        rows = [row for row in ROWS if row.name == name]
        if name == "FloatFunctional":
            yield from method_sections(rows[0])
        else:
            yield operator_section(name, rows)


def operator_section(name: str, rows: Sequence[OpRow]) -> str:
    """Return the section of one operator, which several rows may share."""
    floats = [kind for row in rows for kind in row.floats]
    found = seen().get(name, Seen())
    stub = name in ("QuantStub", "DeQuantStub")
    fused = any(issubclass(kind, FusedModule) for kind in floats)
    facts = {
        "Float forms": code(
            dict.fromkeys(name for kind in floats for name in (module_name(kind), *torch_ao_names(kind)))
        ),
        "Written": code(form for kind in floats for form in written(kind)),
        "QAT module": f"`{rows[0].qat.__name__}`, converted `{rows[0].qat.quantized.__name__}`",
        "Kernels": code(dict.fromkeys(kernel for row in rows for kernel in row.kernels)) or "none",
        "Types": types(found) if found.cases else "",
        "Limits": summary(rows[0].qat.limits) if "limits" in _attributes(rows[0].qat) else "",
        "Notes": " ".join(dict.fromkeys(row.note for row in rows if row.note)),
        "Verified by": "every case" if stub else code(found.cases) or _without_case(fused),
    }
    return entry(name, facts)


def _attributes(cls: type) -> set[str]:
    """Return what a class or its bases define, the common base of all operators left out."""
    return {name for base in cls.__mro__ if base.__name__ not in ("Operator", "object") for name in vars(base)}


def _without_case(fused: bool) -> str:
    return "no case of its own; it shares its code with the other fused forms of the layer" if fused else "no case"


def method_sections(row: OpRow) -> Iterator[str]:
    """Yield a section for every method of FloatFunctional."""
    kernels = {**{name: method.kernels for name, method in METHODS.items()}, **SCALAR_METHODS}
    for name in kernels:
        found = seen().get(f"{row.name}.{name}", Seen())
        facts = {
            "Float forms": f"`FloatFunctional.{name}` of bpu_fx_fusion, torch's FloatFunctional",
            "Written": code(written(name)),
            "QAT module": f"`{row.qat.__name__}`, converted `{row.qat.quantized.__name__}`",
            "Kernels": code(kernels[name]),
            "Types": types(found) if found.cases else "",
            "Limits": refusals(name),
            "Verified by": code(found.cases) or "no case of its own",
        }
        yield entry(f"FloatFunctional.{name}", facts)


def refusals(method: str) -> str:
    """Return what the marches refuse of a method that is called with int8 tensors, reductions over the channels."""
    if method not in METHODS:
        return ""
    texts = {str(march): METHODS[method].limits(row, qint8, [qint8], {"dim": 3}) for march, row in MARCHES.items()}
    refused = {march: f"refused, {'; '.join(reasons)}" for march, reasons in texts.items() if reasons}
    return by_march(refused)


def overview() -> str:
    """Return a table of the operators and the types that cases cover on each march."""
    names = [
        name for row in ROWS for name in (row.name, *(f"{row.name}.{method}" for method in (*METHODS, *SCALAR_METHODS)))
    ]
    rows = [
        [
            f"[{name}](#{name.lower().replace('.', '')})",
            *(", ".join(seen()[name].types(row)) or "-" for row in MARCHES.values()),
        ]
        for name in dict.fromkeys(names)
        if name in seen()
    ]
    return table(["operator", *map(str, MARCHES)], rows)


def unquantized() -> str:
    """Return the functions that become something without an integer form."""
    known = {*OPS, *METHODS, *SCALAR_METHODS}
    made = {found: None for found in map(target, RECIPES.values()) if found not in known}
    names = {each: f"FloatFunctional.{each}" if isinstance(each, str) else module_name(each) for each in made}
    return table(["functions", "become"], sorted([code(written(each)), f"`{name}`"] for each, name in names.items()))


def moves() -> str:
    """Return the functions that only move elements, by kind."""
    kinds = dict.fromkeys(MOVES.values())
    return table(
        ["kind", "functions and methods"], [[k, code(n for n, kind in MOVES.items() if kind == k)] for k in kinds]
    )


def kernels() -> str:
    """Return a table of the integer operators."""
    rows = []
    for name, kernel in KERNELS.items():
        on = [str(march) for march, row in MARCHES.items() if name not in row.refused_kernels]
        counts = golden_cases().get(name, Counter())
        rows.append([f"`{name}`", summary(kernel), ", ".join(on), *(str(counts.get(str(m), "-")) for m in MARCHES)])
    return table(["kernel", "what", "marches", *(f"cases {march}" for march in MARCHES)], rows)


def shown(value: Any) -> str:
    """Return a field of a march's row as text."""
    if isinstance(value, Limit):
        return f"{value} ({value.source})" if len(value.allowed) else f"none ({value.source})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def limits() -> str:
    """Return a table of all fields of MARCHES; marches with the same values share a column."""
    names = [each.name for each in dataclasses.fields(MarchRow) if each.name not in ("march", "boards")]
    columns: dict[tuple[str, ...], list[str]] = {}
    for march, row in MARCHES.items():
        columns.setdefault(tuple(shown(getattr(row, name)) for name in names), []).append(f"{march} ({row.boards})")
    documented = field_summaries(MarchRow)
    rows = [[f"`{name}`", *cells, documented.get(name, "")] for name, *cells in zip(names, *columns, strict=True)]
    return table(["field", *map(", ".join, columns.values()), "what"], rows)


def page() -> str:
    """Return the whole page."""
    parts = [
        INTRODUCTION,
        "## Overview\n\n" + overview(),
        "## Operators by name",
        *operators(),
        "## Moves\n\n" + MOVING + "\n" + moves(),
        "## Functions without an integer form\n\nBetween stubs `prepare_qat_fx` refuses these, with the way out.\n\n"
        + unquantized(),
        "## Kernels\n\n" + KERNEL_TEXT + "\n" + kernels(),
        "## Limits of the marches\n\n" + LIMITS_TEXT + "\n" + limits(),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def main() -> int:
    """Write the page, or check it; return the exit code."""
    made = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == made:
        return 0
    print(f"{PAGE.name} is not what the tables say; run: python docs/generate_operators.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
