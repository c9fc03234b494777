"""Settings of Sphinx: ``sphinx-build -W --keep-going -n docs docs/_build`` from the root of the repository."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from astroid.manager import AstroidManager

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for api_reference

PACKAGES = ("bpu-kernels", "fx-fusion", "qconfig", "qat-nn", "deploy-tools", "horizon-compat")

project = "BPU quantization toolkit"
extensions = ["myst_parser", "sphinx.ext.autodoc", "autoapi.extension", "api_reference"]
exclude_patterns = ["_build"]

myst_heading_anchors = 3

html_theme = "furo"
html_title = project
html_show_copyright = False

# The API pages are read from the sources; nothing is imported.
autoapi_dirs = [str(HERE.parent / "packages" / package / "src") for package in PACKAGES]
autoapi_root = "api"
autoapi_add_toctree_entry = False
autoapi_options = ["members", "show-inheritance", "show-module-summary"]
autoapi_member_order = "bysource"
# Nor does it read torch's sources to find out what our constants are, which takes a minute.
AstroidManager().module_denylist |= {
    "torch",
    "torch.fx",
    "torch.nn",
    "torch.nn.functional",
    "torch.utils._pytree",
    "numpy",
}
suppress_warnings = ["autoapi.python_import_resolution"]  # classes that a loop makes have no line to point to


def name_files_outside(app: Any, docname: str, source: list[str]) -> None:
    """Show the path where a page links to a file of the repository that is no page: ``[text](../x)``."""
    depth = docname.count("/") + 1
    pattern = re.compile(rf"\[([^]]+)\]\((?:\.\./){{{depth}}}([\w./-]+)\)")
    source[0] = pattern.sub(r"\1 (`\2`)", source[0])


def setup(app: Any) -> None:
    """Connect to Sphinx."""
    app.connect("source-read", name_files_outside)
