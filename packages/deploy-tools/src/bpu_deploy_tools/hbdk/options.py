"""CompileOptions: what can be told to the vendor's compiler, and the command line that says it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bpu_kernels import Program
from bpu_kernels.march import March

from ..errors import OptionError

__all__ = ["CompileOptions"]

LAYOUTS = ("NHWC", "NCHW", "BPU_RAW")
LEVELS = ("O0", "O1", "O2", "O3", "ddr", "fast", "balance")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """Options of one compilation.

    Raises:
        OptionError: a value that the compiler does not have; the message lists those that it has.
    """

    opt: str = "O2"
    """O0 to O3, "ddr" (least traffic), "fast" (least cycles) or "balance" between these two."""
    balance_factor: int = 2
    """For "balance": 0 is least traffic, 100 least cycles."""
    input_layout: str | None = None
    """NHWC, NCHW, BPU_RAW; None: the march's own."""
    output_layout: str | None = "NCHW"
    jobs: int = 16
    """Threads."""
    debug: bool = True
    """Keep the layers' names in the file, which per-layer figures need."""
    extra_args: Sequence[str] = ()
    """Further options of hbdk-cc."""

    def __post_init__(self) -> None:
        _expect("opt", self.opt, LEVELS)
        for name in ("input_layout", "output_layout"):
            _expect(name, getattr(self, name), (*LAYOUTS, None))
        if type(self.balance_factor) is not int or not 0 <= self.balance_factor <= 100:
            raise OptionError(f"expected balance_factor 0..100, got {self.balance_factor!r}")
        if type(self.jobs) is not int or self.jobs < 0:
            raise OptionError(f"expected jobs of at least 0 (0: one per core), got {self.jobs!r}")

    def problems(self, program: Program) -> list[str]:
        """Return what of these options a Program's march cannot do."""
        if program.march is March.BERNOULLI2 and self.input_layout == "NCHW":
            return [f"input_layout NCHW on {program.march} (allowed: NHWC, BPU_RAW)"]
        return []

    def arguments(self, name: str) -> list[str]:
        """Return the arguments of hbdk-cc for a model of this name."""
        level = ["--balance", str(self.balance_factor)] if self.opt == "balance" else [f"--{self.opt}"]
        layouts = {"--input-layout": self.input_layout, "--output-layout": self.output_layout}
        given = [part for option, layout in layouts.items() if layout is not None for part in (option, layout)]
        debug = ["-g"] if self.debug else []
        return ["-n", name, "-j", str(self.jobs), *level, *given, *debug, *map(str, self.extra_args)]


def _expect(what: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise OptionError(f"expected {what} among {', '.join(map(str, allowed))}; got {value!r}")


def model_name_of(hbm: Path) -> str:
    """Return the name of a file as the name of a model."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", hbm.stem).lstrip(".-") or "model"


def expect_model_name(name: str) -> str:
    """Return a model's name if the tools can take it; raise OptionError otherwise."""
    if not _NAME.fullmatch(name):
        raise OptionError(f"expected a model name of letters, digits, '_', '.' and '-', got {name!r}")
    return name
