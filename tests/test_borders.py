"""The packages' borders: who may import whom, read from the sources, and what each declares in its pyproject."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parent.parent / "packages"

BORDERS: dict[str, tuple[str, set[str]]] = {
    "bpu-kernels": ("bpu_kernels", {"numpy", "safetensors"}),
    "fx-fusion": ("bpu_fx_fusion", {"torch"}),
    "qconfig": ("bpu_qconfig", {"torch", "numpy", "bpu_kernels"}),
    "qat-nn": ("bpu_qat_nn", {"torch", "numpy", "bpu_kernels", "bpu_fx_fusion", "bpu_qconfig"}),
    "deploy-tools": (
        "bpu_deploy_tools",
        {"torch", "numpy", "rich", "typer", "bpu_kernels", "bpu_fx_fusion", "bpu_qconfig", "bpu_qat_nn"},
    ),
    "horizon-compat": (
        "horizon_plugin_pytorch",
        {"torch", "bpu_kernels", "bpu_fx_fusion", "bpu_qconfig", "bpu_qat_nn", "bpu_deploy_tools"},
    ),
}
"""Folder -> (import name, what it may import besides itself and the standard library)."""

EXTRAS = {
    ("bpu-kernels", "torch_ops"): {"torch"},
    ("deploy-tools", "hbdk"): {"hbdk"},  # the vendor's, for the worker process alone
    ("deploy-tools", "onnx"): {"onnx"},
}
"""(Folder, sub-package) -> what that part alone may import on top; an extra of the distribution."""

DISTRIBUTIONS = {"bpu_fx_fusion": "bpu-fx-fusion", "bpu_kernels": "bpu-kernels", "bpu_qconfig": "bpu-qconfig"}
DISTRIBUTIONS |= {"bpu_qat_nn": "bpu-qat-nn", "bpu_deploy_tools": "bpu-deploy-tools"}


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level names that a file imports absolutely."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("folder", BORDERS)
def test_package_imports_only_what_the_table_allows(folder: str) -> None:
    name, allowed = BORDERS[folder]
    for path in sorted((ROOT / folder / "src").rglob("*.py")):
        part = path.relative_to(ROOT / folder / "src" / name).parts[0]
        legal = allowed | {name} | EXTRAS.get((folder, part), set()) | set(sys.stdlib_module_names)
        assert not set(imported(path)) - legal, path


@pytest.mark.parametrize("folder", BORDERS)
def test_package_declares_what_it_imports(folder: str) -> None:
    name, _ = BORDERS[folder]
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=!~\[; ]", requirement)[0] for requirement in project["dependencies"]}
    found = {each for path in (ROOT / folder / "src").rglob("*.py") for each in imported(path)}
    found -= {name, *sys.stdlib_module_names}
    found -= set().union(*(names for (package, _), names in EXTRAS.items() if package == folder))
    assert {DISTRIBUTIONS.get(each, each) for each in found} <= declared
    siblings = [r for r in project["dependencies"] if r.startswith("bpu-")]
    assert all(re.search(r">=.*,<", requirement) for requirement in siblings), "siblings need both bounds"


@pytest.mark.parametrize("folder", BORDERS)
def test_package_ships_types_licence_and_a_changelog_of_its_version(folder: str) -> None:
    name, _ = BORDERS[folder]
    assert (ROOT / folder / "src" / name / "py.typed").is_file()
    assert (ROOT / folder / "LICENSE").read_text() == (ROOT.parent / "LICENSE").read_text()
    version = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (\S+)", (ROOT / folder / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == version


def test_torch_ao_is_known_to_adapter_files_only() -> None:
    adapters = {"torch_ao.py", "interop_torch_ao.py"}
    pattern = re.compile(r"^\s*(from|import) torch\.(ao|quantization)\b", re.MULTILINE)
    for path in ROOT.glob("*/src/**/*.py"):
        assert path.name in adapters or not pattern.search(path.read_text(encoding="utf-8")), path


def test_every_package_of_the_repository_is_in_the_table() -> None:
    assert {path.parent.name for path in ROOT.glob("*/pyproject.toml")} == set(BORDERS)
