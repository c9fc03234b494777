"""The documentation holds: examples run and print what is shown, generated text is up to date, named tests exist.

A page's ``python`` and ``sh`` blocks run from top to bottom and share names and a folder. A ``text`` block right behind
one of them is what it prints; ``...`` in it stands for anything. Blocks of other kinds are for reading only.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from bpu_fx_fusion import FUSION_PATTERNS
from bpu_qat_nn import OPS

DOCS = Path(__file__).parent
ROOT = DOCS.parent
FOLDERS = (DOCS, DOCS / "guides", DOCS / "decisions")
PACKAGES = sorted(ROOT.glob("packages/*/README.md"))
PAGES = [ROOT / "CONTRIBUTING.md", *PACKAGES, *sorted(path for folder in FOLDERS for path in folder.glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```\n(?:\n*```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
ALIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Example:
    """A block that runs, the line it starts at, and what it prints (None: not shown)."""

    language: str
    code: str
    line: int
    expected: str | None


def examples(page: Path) -> list[Example]:
    """Return the blocks of a page that run."""
    text = page.read_text(encoding="utf-8")
    return [
        Example(match[1], match[2], text[: match.start()].count("\n") + 2, match[3])
        for match in FENCE.finditer(text)
        if match[1] in ("python", "sh")
    ]


def run_python(example: Example, page: Path, names: dict[str, Any]) -> str:
    """Run a block; lines of a traceback are those of the page."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile("\n" * (example.line - 1) + example.code, str(page), "exec"), names)
    return printed.getvalue()


def run_shell(example: Example) -> str:
    """Run the commands of a block, with the programs of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-e"], input=example.code, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def assert_shown(example: Example, page: Path, printed: str) -> None:
    """Compare what was printed with what the page shows."""
    if example.expected is not None and not doctest.OutputChecker().check_output(example.expected, printed, ALIKE):
        pytest.fail(f"{page.name}, line {example.line}: the page shows\n{example.expected}\nbut this came:\n{printed}")


@pytest.fixture
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    tables: list[tuple[dict[Any, Any], dict[Any, Any]]] = [(t, dict(t)) for t in (FUSION_PATTERNS, OPS)]
    monkeypatch.setattr("bpu_qconfig.march._process_march", None)  # as in a new process
    torch.manual_seed(0)
    yield
    for table, content in tables:
        table.clear()
        table.update(content)


@pytest.mark.usefixtures("_isolated")
@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES if examples(p)])
def test_examples_run_and_print_what_the_page_shows(page: Path) -> None:
    """Run a page."""
    names: dict[str, Any] = {"__name__": "page"}
    for example in examples(page):
        printed = run_python(example, page, names) if example.language == "python" else run_shell(example)
        assert_shown(example, page, printed)


def test_page_of_operators_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the page again and compare."""
    monkeypatch.syspath_prepend(DOCS)
    generated = runpy.run_path(str(DOCS / "generate_operators.py"))["page"]()
    assert (DOCS / "operators.md").read_text(encoding="utf-8") == generated, "run python docs/generate_operators.py"


def test_every_test_that_a_page_names_exists() -> None:
    """A page may claim no more than the tests do."""
    named = {name for page in PAGES for name in re.findall(r"\btest_\w+", page.read_text(encoding="utf-8"))}
    files = [*ROOT.glob("packages/*/tests/**/test_*.py"), *ROOT.glob("tests/test_*.py"), *DOCS.glob("test_*.py")]
    known = {path.stem for path in files}
    known |= {name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)}
    assert named - known == set()
