"""What a compiled model costs on the board, as the vendor's tool estimates it: figures as data, and as a table."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from bpu_kernels.whole_file import expect_folder, replace_file

from ..errors import OptionError
from ..sources import InputSource
from .compile import compile_model
from .errors import HbdkError
from .hbm import read_hbm
from .process import Limits
from .tools import Toolkit, find_toolkit

__all__ = ["LayerCost", "Performance", "perf_hbm", "perf_model"]


LAYER_TITLES = ("output", "computing", "load and store", "active")


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer; costs are texts as the tool words them, such as ``"2 us (8.8% of model)"`` or ``"<1 us"``."""

    path: str
    """The Program's node; the tool's own name for layers that it added."""
    ops: int
    shape: str
    """Of the output, NHWC."""
    computing: str
    """Time of computing, without memory traffic."""
    load_store: str
    """Time of memory traffic."""
    active: str
    """From when to when, counted from the model's start."""


@dataclass(frozen=True, kw_only=True)
class Performance(Mapping[str, Any]):
    """The figures of one model; also a mapping of the tool's own JSON, ``performance["summary"]["FPS"]``."""

    name: str
    fps: float
    """Frames per second, of one core."""
    latency_us: float
    """Microseconds from start to end of one run."""
    ops_per_frame: int
    """Additions and multiplications."""
    ddr_bytes_per_frame: int
    """Bytes loaded and stored."""
    layers: tuple[LayerCost, ...]
    """Empty for a model that was compiled without ``debug``."""
    html: Path
    """The tool's own report."""
    json: Path
    """The tool's own figures."""
    raw: Mapping[str, Any] = field(repr=False)
    """The content of ``json``."""

    def __getitem__(self, key: str) -> Any:
        return self.raw[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)


def perf_model(
    module: Any,
    example_inputs: Any,
    march: object = None,
    out_dir: str | os.PathLike[str] = ".",
    name: str | None = None,
    hbm: str | os.PathLike[str] | None = None,
    input_source: InputSource = "ddr",
    input_layout: str | None = None,
    output_layout: str | None = "NCHW",
    opt: str = "O3",
    balance_factor: int = 2,
    progressbar: bool = True,
    jobs: int = 16,
    layer_details: bool = False,
    extra_args: Sequence[str] | None = None,
    *,
    limits: Limits | None = None,
) -> Performance:
    """Compile one model, estimate what it costs on the board, and print it as a table.

    Args:
        module: as of ``compile_model``, one model; so are the other arguments that are not named here.
        example_inputs: real inputs of the model (None for a Program).
        march: None, or the march that the model must be for.
        out_dir: folder of the reports, NAME.html and NAME.json; it is made if need be.
        name: of the model; "model" by default.
        hbm: where to keep the compiled model; None: nowhere.
        input_source: where inputs come from.
        input_layout: how inputs lie in memory.
        output_layout: how outputs lie in memory.
        opt: optimization.
        balance_factor: for opt "balance".
        progressbar: whether to show one.
        jobs: threads of the compiler.
        layer_details: whether to print every layer as well; the result has them in any case.
        extra_args: further options of ``hbdk-cc``.
        limits: of each program that runs.

    Raises:
        As ``compile_model``; before that, as ``bpu_kernels.whole_file.expect_folder`` for ``out_dir``.
    """
    if isinstance(module, (list, tuple)):
        raise OptionError("perf_model takes one model; compile_model packs several, perf_hbm measures each of a file")
    expect_folder(out_dir)
    chosen = name if name is not None else "model" if hbm is None else Path(hbm).stem
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.hbm" if hbm is None else Path(hbm)
        compile_model(
            module,
            example_inputs,
            target,
            march,
            chosen,
            input_source,
            input_layout,
            output_layout,
            opt,
            balance_factor,
            progressbar,
            jobs,
            True,
            extra_args,
            limits=limits,
        )
        (performance,) = perf_hbm(target, out_dir, limits=limits).values()
    show_performance([performance], layer_details=layer_details)
    return performance


def perf_hbm(
    hbm: str | os.PathLike[str],
    out_dir: str | os.PathLike[str] = ".",
    *,
    toolkit: Toolkit | None = None,
    limits: Limits | None = None,
) -> dict[str, Performance]:
    """Return the figures of every model of an ``.hbm`` file, by name.

    Args:
        hbm: path of the file.
        out_dir: folder of the reports; it is made if need be.
        toolkit: by default the one that ``find_toolkit`` finds.
        limits: of each program that runs.

    Raises:
        bpu_kernels.errors.ArgumentError, OSError: no reports can be written to ``out_dir``.
        HbdkError: the file is damaged, or the tool broke.
    """
    expect_folder(out_dir)
    toolkit, limits = toolkit or find_toolkit(), limits or Limits(seconds=600)
    models, target = read_hbm(hbm, toolkit=toolkit, limits=limits), Path(out_dir)
    target.mkdir(parents=True, exist_ok=True)
    found: dict[str, Performance] = {}
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        toolkit.run(["hbdk-perf", str(Path(hbm).resolve()), "-o", name], cwd=made, limits=limits)
        for model in models.values():
            reports = [made / f"{model.name}{suffix}" for suffix in (".html", ".json")]
            if not all(report.is_file() for report in reports):
                raise HbdkError(
                    f"hbdk-perf wrote no report of {model.name}; it wrote {sorted(p.name for p in made.iterdir())}"
                )
            for report in reports:
                replace_file(target / report.name, report.read_bytes())
            html, figures = (target / report.name for report in reports)
            try:
                found[model.name] = _performance(model.name, model.layers, html, figures)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
                raise HbdkError(f"{figures}: the figures are not as expected: {error!r}") from error
    return found


def _performance(name: str, paths: Mapping[str, str], html: Path, figures: Path) -> Performance:
    raw = json.loads(figures.read_text(errors="replace"))
    summary = raw["summary"]
    return Performance(
        name=name,
        fps=float(summary["FPS"]),
        latency_us=float(summary["latency (us)"]),
        ops_per_frame=int(summary.get("BPU OPs per frame (effective)", 0)),  # not told where all of it runs on the CPU
        ddr_bytes_per_frame=int(summary["DDR bytes per frame"]),
        layers=tuple(_layer(row, paths) for row in summary.get("layer details", [])[1:]),
        html=html,
        json=figures,
        raw=raw,
    )


def _layer(row: Sequence[str], paths: Mapping[str, str]) -> LayerCost:
    layer, ops, shape, _, computing, load_store, active = row
    count = int(str(ops).replace(",", ""))
    path = paths.get(layer, layer)
    return LayerCost(path=path, ops=count, shape=shape, computing=computing, load_store=load_store, active=active)


def show_performance(
    performances: Sequence[Performance], *, layer_details: bool, console: Console | None = None
) -> None:
    """Print figures as tables: one row per model, and one per layer if asked for."""
    console = console or Console()
    titles = ("FPS", "latency, us", "operations", "DDR bytes")
    table = Table("model", *map(_right, titles), box=SIMPLE)
    for each in performances:
        figures = (f"{each.fps:,.2f}", f"{each.latency_us:,.1f}", f"{each.ops_per_frame:,}")
        table.add_row(each.name, *figures, f"{each.ddr_bytes_per_frame:,}")
    console.print(table)
    for each in performances if layer_details else ():
        layers = Table("layer", _right("operations"), *LAYER_TITLES, title=each.name, box=SIMPLE)
        for row in each.layers:
            costs = (text.replace(" of model", "") for text in (row.computing, row.load_store))
            layers.add_row(row.path, f"{row.ops:,}", row.shape, *costs, row.active)
        console.print(layers)


def _right(title: str) -> Column:
    return Column(title, justify="right")
