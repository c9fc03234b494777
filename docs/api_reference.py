"""A Sphinx extension for the API pages: our docstrings as reStructuredText, and references to where a name is defined.

Packages re-export what their ``__all__`` lists, while autoapi describes a name where it is defined. So each package's
page gets a list of its public names, and a reference by the public name (``bpu_kernels.Program``) finds the definition.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sphinx.addnodes import pending_xref
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util.nodes import make_refnode

SOURCES: dict[str, Path] = {}
"""Import name of a package -> its folder; filled from the setting ``autoapi_dirs``."""

_MARKUP = re.compile(r"``.*?``|`[^`]+`|[*|]|\w_\b")


def escaped(line: str) -> str:
    """Return a line in which backticks, single or double, mark code and nothing else is markup.

    >>> escaped("largest |x| of `x`")
    'largest \\\\|x\\\\| of ``x``'
    """

    def replace(match: re.Match[str]) -> str:
        found = match[0]
        if found.startswith("`"):
            return f"``{found.strip('`')}``"
        return f"{found[:-1]}\\{found[-1]}"

    return _MARKUP.sub(replace, line)


def restructured(lines: list[str]) -> Iterator[str]:
    """Yield the lines of a docstring as reStructuredText; an indented block behind a colon and a blank line is code."""
    code: int | None = None
    example = False
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if code is not None and line and indent <= code:
            code = None
        example = bool(line) and (example or line.lstrip().startswith(">>> "))
        if code is not None or example:
            yield line
            continue
        following = lines[number + 1 : number + 3]
        if line.endswith(":") and following[:1] == [""] and following[-1][: indent + 1].isspace():
            code = indent
            yield escaped(line) + ":"
        else:
            yield escaped(line)


def process_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring in place; to that of a package, add its public names."""
    if not any(lines):
        return
    # Napoleon takes "name: text" in the docstring of an attribute for a type; ours are plain sentences.
    kind: Any = "function" if what in ("attribute", "data", "property") else what
    settings: Any = Config()
    lines[:] = GoogleDocstring(list(restructured(lines)), settings, app, kind, name).lines()
    public = public_names(name) if what == "package" and name in SOURCES else ()
    if public:
        lines += ["", "Public names: " + ", ".join(f":py:obj:`{n} <{name}.{n}>`" for n in public) + "."]


@cache
def body_of(module: str) -> list[ast.stmt]:
    """Return the statements of a module of ours, none if there is no such file."""
    top, *parts = module.split(".")
    base = SOURCES[top].joinpath(*parts)
    files = [path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()]
    return ast.parse(files[0].read_text(encoding="utf-8")).body if files else []


def public_names(package: str) -> list[str]:
    """Return what the ``__all__`` of a package lists."""
    for node in body_of(package):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


@cache
def definition(module: str, name: str) -> str | None:
    """Return the full name of what a module of ours calls ``name``, following imports; None if it has no such name."""
    for node in body_of(module):
        if isinstance(node, ast.ImportFrom):
            for alias in (each for each in node.names if name == (each.asname or each.name)):
                source = imported_module(module, node)
                ours = source.split(".")[0] in SOURCES and source != module  # a package imports its own parts
                return definition(source, alias.name) if ours else f"{source}.{alias.name}"
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        if name in {getattr(node, "name", None), *(getattr(target, "id", None) for target in targets)}:
            return f"{module}.{name}"
    return None


def imported_module(module: str, node: ast.ImportFrom) -> str:
    """Return the absolute name of the module that an import statement in a module takes names from."""
    parts = module.split(".")
    is_package = SOURCES[parts[0]].joinpath(*parts[1:]).is_dir()
    above = parts[: len(parts) - node.level + is_package] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def qualify_references(app: Any, doctree: Any) -> None:
    """Give references on API pages the full name of what their module means by a name."""
    for node in doctree.findall(pending_xref):
        if node.get("refdomain") == "py" and app.env.docname.startswith("api/"):
            module, _, name = node["reftarget"].rpartition(".")
            module = module or node.get("py:module") or ""
            found = definition(module, name) if module.split(".")[0] in SOURCES else None
            if found is not None:
                node["reftarget"], node["refspecific"] = found, False


def resolve_reference(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Link names whose kind differs from what Sphinx expects, such as aliases of types.

    On API pages the rest stays text: types of torch and numpy, type variables, classes that a loop makes. Elsewhere an
    unknown name stays an error.
    """
    if node.get("refdomain") != "py":
        return None
    found = env.get_domain("py").objects.get(node["reftarget"])
    if found is not None:
        return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, contnode)
    return contnode if node["refdoc"].startswith("api/") else None


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    for folder in app.config.autoapi_dirs:
        SOURCES.update({path.name: path for path in Path(folder).iterdir() if (path / "__init__.py").is_file()})
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("doctree-read", qualify_references)
    app.connect("missing-reference", resolve_reference)
    return {"parallel_read_safe": True}
