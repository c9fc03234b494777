"""The package as a whole: its public names, its errors, its imports, and the example in its README."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import re
from pathlib import Path

import pytest

import bpu_fx_fusion
from bpu_fx_fusion import FUSION_PATTERNS, FxFusionError

PACKAGE = Path(inspect.getfile(bpu_fx_fusion)).parent
ROOT = Path(__file__).parent.parent

SURFACE = {
    "FUSION_PATTERNS",
    "FloatFunctional",
    "FusionHandler",
    "GraphModuleWithAttr",
    "Interpolate",
    "MatchAllNode",
    "Tracer",
    "copy_attributes",
    "fuse_fx",
    "register_fusion_pattern",
    "register_leaf_module",
    "wrap",
}


def imported_modules() -> set[str]:
    trees = [ast.parse(path.read_text()) for path in PACKAGE.glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}


def test_every_public_name_exists_once_and_has_a_docstring() -> None:
    names = bpu_fx_fusion.__all__

    assert sorted(names) == sorted(set(names))
    assert set(names) >= SURFACE
    assert all(inspect.getdoc(getattr(bpu_fx_fusion, name)) for name in names if callable(getattr(bpu_fx_fusion, name)))


def test_only_torch_is_imported_and_nothing_of_its_quantization() -> None:
    modules = imported_modules()

    assert not {m for m in modules if m.startswith(("bpu_", "horizon", "numpy"))}
    assert not {m for m in modules if m.startswith(("torch.ao", "torch.quantization", "torch.nn.quantized"))}


@pytest.mark.parametrize("name", [n for n in bpu_fx_fusion.__all__ if n.endswith("Error")])
def test_all_errors_share_one_base(name: str) -> None:
    assert issubclass(getattr(bpu_fx_fusion, name), FxFusionError)


def test_the_changelog_begins_with_this_version() -> None:
    changelog = ROOT / "CHANGELOG.md"

    heading = re.search(r"^## ([\d.]+)", changelog.read_text(), re.MULTILINE)

    assert heading is not None
    assert heading[1] == importlib.metadata.version("bpu-fx-fusion")


def test_the_examples_in_the_readme_run() -> None:
    patterns = dict(FUSION_PATTERNS)
    readme = (ROOT / "README.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)

    assert examples
    try:
        for example in examples:
            exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    finally:
        FUSION_PATTERNS.clear()
        FUSION_PATTERNS.update(patterns)
