"""The command line: run, show and check Program files, and check golden data.

Exit codes: 0, all is well; 1, a check failed; 2, the command or its input cannot be used.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from . import golden
from .array_files import describe_output, read_inputs, write_outputs
from .errors import BpuKernelsError, SelfTestError
from .program_file import load
from .program_json import program_to_json
from .run import BACKENDS, run
from .show import show
from .whole_file import expect_folder

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code. Wrong usage leaves by ``SystemExit(2)``, as argparse has it."""
    given = _parser().parse_args(arguments)
    try:
        code: int = given.command(given)
        return code
    except SelfTestError as error:
        return _fail(error, 1)
    except (BpuKernelsError, OSError) as error:
        return _fail(error, 2)


def _fail(error: Exception, code: int) -> int:
    """Say what is wrong on one line, without what a terminal would take for commands."""
    text = "; ".join(line.strip() for line in str(error).splitlines())
    print(f"error: {''.join(c if c.isprintable() else '?' for c in text)}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bpu-kernels", description="Run, show and check Program files of the BPU.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("run", help="run a Program on integers and print or write its outputs")
    command.add_argument("file", type=Path, help="Program file")
    command.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="[NAME=]PATH",
        help="a .npy of integers, or raw bytes: NHWC integers, or NV12 for a camera input; once per input",
    )
    command.add_argument("--output", type=Path, metavar="DIR", help="write every output as DIR/NAME.npy")
    command.add_argument("--keep", nargs="+", default=[], metavar="NAME", help="nodes whose outputs to give as well")
    command.add_argument("--backend", choices=sorted(BACKENDS), default="numpy")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(command=_run)

    command = commands.add_parser("show", help="print a Program as a table")
    command.add_argument("file", type=Path, help="Program file")
    command.add_argument("--json", action="store_true", help="print the graph as JSON, without the arrays")
    command.set_defaults(command=_show)

    command = commands.add_parser("check", help="check a Program file, and run the self-test that it carries")
    command.add_argument("file", type=Path, help="Program file")
    command.add_argument("--backend", choices=sorted(BACKENDS), default="numpy")
    command.set_defaults(command=_check)

    command = commands.add_parser("golden", help="check golden data of the vendor's simulator")
    command.add_argument("directory", type=Path)
    command.set_defaults(command=_golden)
    return parser


def _run(given: argparse.Namespace) -> int:
    program = load(given.file)
    expect_folder(given.output)
    outputs = run(program, read_inputs(program.inputs, given.input), keep=given.keep, backend=given.backend)
    paths = {} if given.output is None else write_outputs(given.output, outputs)
    described = {name: describe_output(value, paths.get(name)) for name, value in outputs.items()}
    if given.json:
        values = {} if paths else {name: {"values": value.tolist()} for name, value in outputs.items()}
        print(json.dumps({name: entry | values.get(name, {}) for name, entry in described.items()}))
    else:
        for name, entry in described.items():
            where = f" -> {entry['file']}" if "file" in entry else ""
            print(f"{name}  {entry['dtype']}{entry['shape']} {entry['min']}..{entry['max']}{where}")
    return 0


def _show(given: argparse.Namespace) -> int:
    program = load(given.file)
    print(json.dumps(program_to_json(program), indent=2) if given.json else show(program))
    return 0


def _check(given: argparse.Namespace) -> int:
    program = load(given.file)
    if program.self_test is None:
        print(f"{given.file}: valid for {program.march}, {len(program.nodes)} nodes; it carries no self-test")
        return 0
    program.check_self_test(given.backend)
    print(f"{given.file}: valid for {program.march}, {len(program.nodes)} nodes; self-test equal on {given.backend}")
    return 0


def _golden(given: argparse.Namespace) -> int:
    outcomes = list(golden.check_directory(given.directory))
    print(golden.report(outcomes))
    return int(any(outcome.differing for outcome in outcomes))
