"""``bpu``: its commands, and the exit codes that scripts can rely on.

Exit codes: 0, all is well; 1, something differs or is refused; 2, the command or its input cannot be used.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from bpu_kernels import BpuKernelsError, SelfTestError, UnsupportedError

from ..errors import BpuDeployError, LoweringError
from ..hbdk import HbdkRefusalError
from . import board, files, write

__all__ = ["app", "main"]

REFUSED = (HbdkRefusalError, LoweringError, SelfTestError, UnsupportedError)
"""Errors that answer the question which was asked; every other one means that it cannot be answered."""

app = typer.Typer(
    name="bpu",
    help="Programs and compiled models of the BPU: show, run, check, compile, measure, simulate, export, compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    files.show,
    files.run,
    files.compare,
    board.check,
    board.compile,
    board.perf,
    board.simulate,
    board.doctor,
    write.export,
    write.insert_yuv,
    write.split,
):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        app(None if arguments is None else list(arguments), prog_name="bpu")
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 0
    except REFUSED as error:
        return _fail(error, 1)
    except (BpuKernelsError, BpuDeployError, OSError) as error:
        return _fail(error, 2)
    return 0


def _fail(error: Exception, code: int) -> int:
    """Say what is wrong, without what a terminal would take for commands."""
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in str(error))
    print(f"error: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
