"""The package holds names only: a module is its docstring, imports, ``__all__`` and the table's ``__getattr__``."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import horizon_plugin_pytorch

PACKAGE = Path(inspect.getfile(horizon_plugin_pytorch)).parent
OWN = {"errors.py", "unavailable.py"}
"""The modules with code of their own: the table of what does not exist, and its errors."""

MODULES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
FACADES = [name for name in MODULES if name not in OWN]
SOURCES = ("bpu_kernels", "bpu_qconfig", "bpu_fx_fusion", "bpu_qat_nn", "bpu_deploy_tools", "torch")


def is_allowed(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.ImportFrom):
        return statement.level > 0 or (statement.module or "").split(".")[0] in (*SOURCES, "__future__")
    if isinstance(statement, ast.Assign):
        return ast.unparse(statement) == "__getattr__ = explain_missing(__name__)" or (
            ast.unparse(statement.targets[0]) == "__all__" and isinstance(statement.value, ast.List)
        )
    return False


@pytest.mark.parametrize("name", FACADES)
def test_module_consists_of_a_docstring_and_imports(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text())

    assert ast.get_docstring(tree)
    assert [ast.unparse(statement) for statement in tree.body[1:] if not is_allowed(statement)] == []


@pytest.mark.parametrize("name", FACADES)
def test_names_are_exported_so_that_type_checkers_see_them(name: str) -> None:
    """Names under which something else is imported are re-exports only if ``__all__`` lists them."""
    tree = ast.parse(MODULES[name].read_text())
    listed = [ast.literal_eval(s.value) for s in tree.body if isinstance(s, ast.Assign) and "__all__" in ast.unparse(s)]
    aliases = [alias for s in tree.body if isinstance(s, ast.ImportFrom) for alias in s.names]

    hidden = {alias.asname or alias.name for alias in aliases if alias.asname != alias.name} - {
        "annotations",
        "explain_missing",
    }
    assert hidden <= {entry for names in listed for entry in names}
