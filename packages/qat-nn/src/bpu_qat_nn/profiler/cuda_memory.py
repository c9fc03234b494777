"""``show_cuda_memory_consumption``: how much GPU memory is held after each module, forwards and backwards."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bpu_kernels.whole_file import expect_folder

from ..errors import ArgumentError
from .called_count import leaves_of
from .devices import inputs_on
from .page import Chart, Section, Table, write_page
from .record import arguments_of, tensors_in
from .watch import Heard, watched

__all__ = ["MemoryRow", "memory_by_call", "show_cuda_memory_consumption"]


class MemoryRow(NamedTuple):
    """What is held once something has happened."""

    event: str
    """"start", "forward" of a module, "backward" when the gradient of its result is known, "end"."""
    name: str
    """Path of the module; empty for the start and the end."""
    bytes: int


def show_cuda_memory_consumption(
    model: nn.Module,
    example_inputs: Any,
    device: torch.device | str | int,
    check_leaf_module: Callable[[nn.Module], bool] | None = None,
    out_dir: str | None = None,
    file_name: str | None = None,
    custom_backward: Callable[[Any], Any] | None = None,
) -> list[MemoryRow]:
    """Return and draw the memory that torch holds on a GPU, after each module of a training step.

    A copy of the model is trained, in the mode that the model is in: model, parameters and gradients stay as they are.

    Args:
        model: of any stage; a converted one runs forwards only.
        example_inputs: a tensor, a tuple of what forward takes, or a dict of it by name.
        device: the GPU.
        check_leaf_module: as of ``get_module_called_count``.
        out_dir: folder for the page; None writes nothing.
        file_name: of the page, "mem_info" if None; .html is added.
        custom_backward: takes the model's result and calls backward; None: of the sum of its tensors that have a
            gradient.

    Raises:
        ArgumentError: there is no such GPU.
    """
    expect_folder(out_dir)
    chosen = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if chosen.type != "cuda" or not torch.cuda.is_available():
        raise ArgumentError(
            f"expected a CUDA device that torch can use, got {chosen}; torch.cuda.is_available() is "
            f"{torch.cuda.is_available()} here. On the CPU torch does not count what it holds"
        )

    def held() -> int:
        torch.cuda.synchronize(chosen)
        return torch.cuda.memory_allocated(chosen)

    trained = copy.deepcopy(model).to(chosen)
    rows = memory_by_call(trained, inputs_on(example_inputs, chosen), held, check_leaf_module, custom_backward)
    if out_dir is not None:
        title = f"Memory held on {torch.cuda.get_device_name(chosen)}"
        write_page(Path(out_dir, f"{file_name or 'mem_info'}.html"), title, memory_sections(rows))
    return rows


def memory_by_call(
    model: nn.Module,
    example_inputs: Any,
    held: Callable[[], int],
    check_leaf_module: Callable[[nn.Module], bool] | None = None,
    custom_backward: Callable[[Any], Any] | None = None,
) -> list[MemoryRow]:
    """Take a training step and ask after each module how much is held; the gradients stay with the model.

    Arguments are those of ``show_cuda_memory_consumption``, but for ``held``, which returns how many bytes are held.
    """
    rows = [MemoryRow("start", "", held())]

    def backward(path: str, gradient: Tensor) -> None:
        rows.append(MemoryRow("backward", path, held()))

    def forward(heard: Heard, result: Any) -> None:
        rows.append(MemoryRow("forward", heard.path, held()))
        for tensor in tensors_in(result)[:1]:
            if tensor.requires_grad:
                note = partial(backward, heard.path)
                tensor.register_hook(note)  # type: ignore[no-untyped-call]

    args, kwargs = arguments_of(example_inputs)
    with watched(leaves_of(model, check_leaf_module), lambda args, kwargs: None, forward):
        result = model(*args, **kwargs)
    (custom_backward or _backward)(result)
    del result
    rows.append(MemoryRow("end", "", held()))
    return rows


def _backward(result: Any) -> None:
    trained: list[Tensor] = [tensor.sum() for tensor in tensors_in(result) if tensor.requires_grad]
    if trained:
        torch.stack(trained).sum().backward()  # type: ignore[no-untyped-call]


def memory_sections(rows: list[MemoryRow]) -> list[Section]:
    """Return what the page shows: memory over time, and the table."""
    names = [f"{row.event} {row.name}".strip() for row in rows]
    added = [row.bytes - before.bytes for before, row in zip(rows[:1] + rows, rows, strict=False)]
    cells = [(name, f"{row.bytes:,}", f"{more:+,}") for name, row, more in zip(names, rows, added, strict=True)]
    largest = max(range(len(rows)), key=lambda index: rows[index].bytes)
    marked = [index == largest for index in range(len(rows))]
    return [
        Section("MiB held, in order", charts=[Chart("MiB", names, [row.bytes / 2**20 for row in rows], marked)]),
        Section("Bytes held", table=Table(("after", "bytes", "added"), cells, marked)),
    ]
