"""The package as a whole: its public names, its changelog, and the example in its README."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import horizon_plugin_pytorch as horizon

ROOT = Path(__file__).parent.parent


def test_public_names_exist_once() -> None:
    assert sorted(horizon.__all__) == sorted(set(horizon.__all__))
    assert all(hasattr(horizon, name) for name in horizon.__all__)


def test_changelog_begins_with_this_version() -> None:
    heading = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert heading is not None
    assert heading[1] == importlib.metadata.version("bpu-horizon-compat")


def test_examples_of_the_readme_run() -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
