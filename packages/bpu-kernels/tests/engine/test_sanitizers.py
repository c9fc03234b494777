"""The engine under AddressSanitizer and UndefinedBehaviorSanitizer: built anew, and the exactness tests run on it.

It takes minutes, so it has a mark of its own: ``pytest -m sanitizer``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2]
TESTS = ["test_integers.py", "test_kernels.py", "test_backend.py", "../test_layer_pass.py", "../test_training_pass.py"]


@pytest.mark.sanitizer
@pytest.mark.slow
def test_exactness_tests_run_clean_under_the_sanitizers(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "sanitizer" not in request.config.option.markexpr:
        pytest.skip("asked for by -m sanitizer only")
    compiler, cmake = shutil.which("g++"), shutil.which("cmake")
    if compiler is None or cmake is None or sys.platform != "linux":
        pytest.skip("needs g++ and cmake on Linux")
    build = tmp_path / "build"
    configure = [cmake, "-S", str(PACKAGE / "native"), "-B", str(build), "-DBPU_ENGINE_SANITIZE=ON"]
    subprocess.run([*configure, f"-DCMAKE_CXX_COMPILER={compiler}"], check=True, capture_output=True)
    subprocess.run([cmake, "--build", str(build), "--parallel", "2"], check=True, capture_output=True)
    runtimes = [
        subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = os.environ | {
        "BPU_ENGINE_LIBRARY": str(build / "libbpu_engine.so"),
        "LD_PRELOAD": ":".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps memory to its end
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    tests = [str(Path(__file__).parent / name) for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=PACKAGE, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
