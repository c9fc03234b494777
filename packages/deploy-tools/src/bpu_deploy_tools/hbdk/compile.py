"""From models to what the board runs: check, HBIR, ``.hbm``; the vendor's tools do it, each in a process of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bpu_kernels import Problem, Program, UnsupportedError
from bpu_kernels.whole_file import expect_place, replace_file

from ..errors import LoweringError, OptionError
from ..sources import InputSource, program_of, programs_of
from .errors import HbdkError, HbdkRefusalError
from .hbir import build_hbir
from .hbm import describe
from .options import CompileOptions, expect_model_name, model_name_of
from .plan import Plan
from .process import Limits
from .progress import Step, steps
from .tools import OnPercent, Toolkit, find_toolkit

__all__ = ["check_model", "compile_model", "compile_programs", "export_hbir"]


def check_model(
    module: Any,
    example_inputs: Any,
    march: object = None,
    input_source: InputSource = "ddr",
    advice: int | None = None,
    check_quanti_param: bool = True,
    *,
    limits: Limits | None = None,
) -> int:
    """Say whether the board can run a model; print why not.

    Our own checks come first: the vendor's checker passes models that its simulator then aborts on.

    Args:
        module: a converted model, one that was traced or exported by torch, a Program, the path of a Program's file, or
            a list of these, which are checked one after the other.
        example_inputs: real inputs of the model (None for a Program).
        march: None, or the march that the model must be for.
        input_source: "ddr", "pyramid" or "resizer", for all inputs, as a list, or by name.
        advice: microseconds; a layer that is slowed down by more is named, with what to do.
        check_quanti_param: whether the checker looks at the parameters of the quantization too.
        limits: of each program that runs.

    Returns:
        0: it can run. 1: it cannot.

    Raises:
        HbdkNotFoundError: the vendor's toolkit is not installed; our own checks have passed.
    """
    try:
        programs = programs_of(module, example_inputs, march=march, input_source=input_source)
        options = [] if check_quanti_param else ["--skip-check-quanti-param"]
        options += [] if advice is None else ["--advice", str(advice)]
        for program in programs:
            print(_checked(program, options, find_toolkit(), limits or Limits()).strip())
    except (LoweringError, UnsupportedError, HbdkRefusalError) as error:
        print(f"This model is not supported: {error}")
        return 1
    return 0


def _checked(program: Program, options: Sequence[str], toolkit: Toolkit, limits: Limits) -> str:
    with tempfile.TemporaryDirectory() as folder:
        hbir = Path(folder) / "model.hbir"
        planned = build_hbir(program, hbir, toolkit=toolkit, limits=limits)
        return _tool("hbdk-model-check", _common(hbir, program) + list(options), planned, toolkit, limits)


def export_hbir(
    module: Any, example_inputs: Any, hbir: str | os.PathLike[str], march: object = None
) -> tuple[list[str], list[str]]:
    """Write a model as HBIR, the input of the vendor's compiler.

    Args:
        module: as of ``check_model``, one model.
        example_inputs: likewise.
        hbir: path of the file.
        march: None, or the march that the model must be for.

    Returns:
        The names of its inputs and of its outputs, in order.
    """
    expect_place(hbir)
    program = program_of(module, example_inputs, march=march)
    build_hbir(program, Path(hbir))
    return [each.name for each in program.inputs], [each.name for each in program.outputs]


def compile_model(
    module: Any,
    example_inputs: Any,
    hbm: str | os.PathLike[str],
    march: object = None,
    name: str | Sequence[str] | None = None,
    input_source: InputSource = "ddr",
    input_layout: str | None = None,
    output_layout: str | None = "NCHW",
    opt: str = "O2",
    balance_factor: int = 2,
    progressbar: bool = True,
    jobs: int = 16,
    debug: bool = True,
    extra_args: Sequence[str] | None = None,
    *,
    limits: Limits | None = None,
) -> int:
    """Check a model and compile it to an ``.hbm`` file; several segments are packed into one.

    Args:
        module: as of ``check_model``; a list or tuple holds the segments.
        example_inputs: as of ``check_model``; for segments a list, or None.
        hbm: path of the file, ending in ``.hbm``.
        march: None, or the march that the model must be for.
        name: of the model in the file, or of each segment; by default the file's name, numbered for segments.
        input_source: as of ``check_model``.
        input_layout: how inputs lie in memory: NHWC, NCHW, BPU_RAW, or None, the march's own.
        output_layout: likewise of outputs. Layouts change no value.
        opt: O0 to O3, "ddr", "fast" or "balance".
        balance_factor: for "balance": 0 is least memory traffic, 100 least cycles.
        progressbar: whether to show one, on stderr.
        jobs: threads of the compiler.
        debug: keep the layers' names in the file; figures per layer need them.
        extra_args: further options of ``hbdk-cc``.
        limits: of each program that runs.

    Returns:
        0; whatever goes wrong is raised.

    Raises:
        OptionError, bpu_kernels.errors.ArgumentError, OSError: ``hbm`` cannot be written; nothing was lowered.
        LoweringError, UnsupportedError, SourceError: as of ``program_of``; nothing was compiled.
        HbdkRefusalError: the checker or the compiler refuses the model, in its own words.
        HbdkError: a program of the toolkit broke, or ran into a limit. In no case is a file half written.
    """
    target = Path(hbm)
    _expect_place(target)
    programs = programs_of(module, example_inputs, march=march, input_source=input_source)
    options = CompileOptions(
        opt=opt,
        balance_factor=balance_factor,
        input_layout=input_layout,
        output_layout=output_layout,
        jobs=jobs,
        debug=debug,
        extra_args=tuple(extra_args or ()),
    )
    names = _names(name, target, len(programs))
    compile_programs(dict(zip(names, programs, strict=True)), target, options, progressbar=progressbar, limits=limits)
    return 0


def _expect_place(hbm: Path) -> None:
    if hbm.suffix != ".hbm":
        raise OptionError(f"expected a path that ends in .hbm, got {hbm}")
    expect_place(hbm)


def _names(name: str | Sequence[str] | None, hbm: Path, count: int) -> list[str]:
    if isinstance(name, (list, tuple)):
        if len(name) != count or len(set(name)) != count:
            raise OptionError(f"expected {count} different names, got {list(name)}")
        return [expect_model_name(each) for each in name]
    first = expect_model_name(str(name)) if name is not None else model_name_of(hbm)
    return [first] if count == 1 else [f"{first}_{index}" for index in range(count)]


def compile_programs(
    programs: dict[str, Program],
    hbm: Path,
    options: CompileOptions | None = None,
    *,
    progressbar: bool = False,
    toolkit: Toolkit | None = None,
    limits: Limits | None = None,
) -> None:
    """Check and compile Programs, by the names of their models, into one ``.hbm`` file; errors as of compile_model."""
    options, limits = options or CompileOptions(), limits or Limits()
    _expect_place(hbm)
    problems = [Problem(name, tuple(found)) for name, each in programs.items() if (found := options.problems(each))]
    if problems:
        raise UnsupportedError("the march cannot do what the options ask for:", problems)
    if len({program.march for program in programs.values()}) != 1:
        marches = ", ".join(f"{name}: {program.march}" for name, program in programs.items())
        raise OptionError(f"models in one file must be for one march; got {marches}")
    toolkit = toolkit or find_toolkit()
    with tempfile.TemporaryDirectory() as folder, steps(progressbar) as begin:
        parts = [
            _compiled(program, expect_model_name(name), options, Path(folder) / str(index), begin, toolkit, limits)
            for index, (name, program) in enumerate(programs.items())
        ]
        made = parts[0]
        if len(parts) > 1:
            begin("packing")
            made = Path(folder) / "packed.hbm"
            toolkit.run(["hbdk-pack", *map(str, parts), "-o", str(made)], cwd=Path(folder), limits=limits)
        replace_file(hbm, made.read_bytes())


def _compiled(
    program: Program, name: str, options: CompileOptions, folder: Path, begin: Step, toolkit: Toolkit, limits: Limits
) -> Path:
    """Compile one model in a new folder and return the path of its file."""
    folder.mkdir()
    hbir, made, description = folder / f"{name}.hbir", folder / f"{name}.hbm", folder / "description.json"
    begin(f"{name}: building")
    planned = build_hbir(program, hbir, toolkit=toolkit, limits=limits)
    description.write_text(describe(program, name, planned))
    begin(f"{name}: checking")
    common = _common(hbir, program)
    _tool("hbdk-model-check", common, planned, toolkit, limits)
    percent = begin(f"{name}: compiling")
    rest = [*options.arguments(name), "--description", str(description), "--progressbar", "-o", str(made)]
    _tool("hbdk-cc", common + rest, planned, toolkit, limits, percent)
    return made


def _common(hbir: Path, program: Program) -> list[str]:
    """Return the arguments that checker and compiler share."""
    sources = ",".join(each.source for each in program.inputs)
    return ["-m", str(hbir), "-f", "hbir", "--march", str(program.march), "-i", sources]


def _tool(
    name: str,
    arguments: Sequence[str],
    planned: Plan,
    toolkit: Toolkit,
    limits: Limits,
    on_percent: OnPercent | None = None,
) -> str:
    """Run a program of the toolkit; what it says of layers is said of the model's own paths."""
    folder = Path(arguments[1]).parent
    try:
        return toolkit.run([name, *arguments], cwd=folder, limits=limits, on_percent=on_percent)
    except HbdkError as error:
        raise type(error)(planned.with_paths(str(error))) from error
