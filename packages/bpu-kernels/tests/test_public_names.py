"""The public surface, the promise that torch is not needed, and examples that run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import bpu_kernels

README = Path(__file__).parent.parent / "README.md"

PUBLIC = """
BACKENDS DTYPES KERNELS MARCHES ArgumentError BpuKernelsError Cost InvalidProgramError Kernel March MarchRow Node
Problem Program ProgramBuilder ProgramInput ProgramOutput QuantDType SelfTest SelfTestError TensorSpec UnsupportedError
Value dequantize_outputs load loads march_row qinfo qint8 qint16 qint32 quant_dtype quantize_inputs run save saves show
"""

MODULES = [
    module.name
    for module in pkgutil.walk_packages(bpu_kernels.__path__, "bpu_kernels.")
    if "torch_ops" not in module.name and not module.name.endswith("__main__")
]


def test_public_names_are_these() -> None:
    assert sorted(bpu_kernels.__all__) == sorted(PUBLIC.split())
    assert all(hasattr(bpu_kernels, name) for name in bpu_kernels.__all__)


def test_version_is_that_of_the_distribution() -> None:
    assert bpu_kernels.__version__ == version("bpu-kernels")


def test_torch_is_not_imported() -> None:
    code = f"import sys, {', '.join(MODULES)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_error_derives_from_the_base_and_a_builtin() -> None:
    errors = [getattr(bpu_kernels, name) for name in bpu_kernels.__all__ if name.endswith("Error")]
    for error in errors:
        assert issubclass(error, bpu_kernels.BpuKernelsError)
        assert error is bpu_kernels.BpuKernelsError or issubclass(error, ValueError | AssertionError)


@pytest.mark.parametrize("name", MODULES)
def test_module_says_what_it_is_about_and_its_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert all(hasattr(module, public) for public in getattr(module, "__all__", ()))
    assert doctest.testmod(module).failed == 0


def test_readme_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    shared: dict[str, object] = {}
    for block in blocks:
        exec(block, shared)
