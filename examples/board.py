"""Compiling a Program for the board, and holding the vendor's simulator to its integers, where the toolkit is there."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

import bpu_kernels
from bpu_deploy_tools import compile_model, simulate
from bpu_deploy_tools.hbdk import find_toolkit

__all__ = ["differing_on_the_simulator"]


def differing_on_the_simulator(program: bpu_kernels.Program, given: np.ndarray, hbm: Path) -> int:
    """Write an ``.hbm`` file, run one input in the simulator, print what came of it.

    Args:
        program: it has one input.
        given: integers as stored, or NV12.
        hbm: path of the file.

    Returns:
        How many integers of the outputs differ from the Program's.

    Raises:
        HbdkNotFoundError: the toolkit is not installed; the message says how to get it.
    """
    find_toolkit()  # before anything is compiled
    start = time.perf_counter()
    compile_model(program, None, hbm)
    compiled = time.perf_counter()
    simulated = simulate(hbm, given)
    seconds = (compiled - start, time.perf_counter() - compiled)
    expected = bpu_kernels.run(program, given)
    differing = sum(int((simulated[name] != value).sum()) for name, value in expected.items())
    count = sum(value.size for value in expected.values())
    print(
        f"Board: {hbm}, {hbm.stat().st_size:,} bytes, compiled in {seconds[0]:.0f} s\n"
        f"Vendor's simulator, {seconds[1]:.0f} s: {differing} of {count:,} integers differ from the Program's"
    )
    return differing
