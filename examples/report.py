"""What the examples print and draw: progress bars, one table, pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor

matplotlib.use("Agg")
from matplotlib import pyplot

CONSOLE = Console(width=100)


@dataclass(frozen=True)
class Row:
    """One stage of a model."""

    stage: str
    accuracy: float
    differing: int | None
    """Integers in which it differs from the model in VALIDATION state; None where there are none to compare."""
    megabytes: float
    seconds: float
    """For the whole test set."""
    top5: float | None = None
    agreement: float | None = None
    """Share of images with the float model's answer."""


def megabytes(count: int) -> float:
    """Return bytes in millions."""
    return count / 1e6


@contextmanager
def progress(title: str, steps: int) -> Iterator[Callable[[], None]]:
    """Show a bar; the function that it yields advances it by one."""
    columns = (TextColumn("{task.description:18}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=CONSOLE) as bar:
        task = bar.add_task(title, total=steps)
        yield lambda: bar.advance(task)


def show_table(title: str, rows: Sequence[Row]) -> None:
    """Print the result."""
    shown: dict[str, list[str]] = {
        "stage": [row.stage for row in rows],
        "top-1": [f"{row.accuracy:.1%}" for row in rows],
        "top-5": ["" if row.top5 is None else f"{row.top5:.1%}" for row in rows],
        "as float": ["" if row.agreement is None else f"{row.agreement:.1%}" for row in rows],
        "differing integers": ["" if row.differing is None else str(row.differing) for row in rows],
        "MB": [f"{row.megabytes:.3f}" for row in rows],
        "seconds": [f"{row.seconds:.2f}" for row in rows],
    }
    columns = {heading: cells for heading, cells in shown.items() if any(cells)}
    table = Table(title=title)
    for heading in columns:
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    CONSOLE.print(table)


def picture_of_digits(path: Path, images: Tensor, labels: Tensor, found: Tensor, count: int = 40) -> Path:
    """Draw digits with the integer model's answers, all mistakes first; red where it is wrong."""
    order = (found == labels).to(int).argsort(stable=True)[:count]  # type: ignore[arg-type]
    figure, axes = pyplot.subplots(5, 8, figsize=(9, 6.4))
    for axis, index in zip(axes.flat, order.tolist(), strict=True):
        axis.imshow(images[index, 0].numpy(), cmap="gray")
        right = bool(found[index] == labels[index])
        label = f"{int(found[index])}" if right else f"{int(found[index])}, is {int(labels[index])}"
        axis.set_title(label, color="black" if right else "red", fontsize=9)
        axis.axis("off")
    wrong = int((found != labels).sum())
    figure.suptitle(f"The Program's answers: {wrong} of {len(labels)} wrong (shown first)")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return path


def picture_of_photos(path: Path, photos: Sequence[np.ndarray], captions: Sequence[tuple[str, bool]]) -> Path:
    """Draw photographs with captions; red where the flag is False."""
    columns = 6
    lines = -(-len(photos) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(12, 2.5 * lines), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, photo, (caption, good) in zip(axes.flat, photos, captions, strict=False):
        axis.imshow(photo)
        axis.set_title(caption, color="black" if good else "red", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
    return path
