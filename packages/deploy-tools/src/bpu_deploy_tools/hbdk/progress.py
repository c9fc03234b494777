"""Showing how far the vendor's tools are: one bar per step, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["Step", "steps"]

Step = Callable[[str], "Callable[[int], None]"]
"""Takes what begins now, and gives the function to call with its percentage; what began before is finished by that."""


@contextmanager
def steps(shown: bool) -> Iterator[Step]:
    """Show steps as they come; nothing where ``shown`` is False."""
    columns = (TextColumn("{task.description:24}"), BarColumn(40), TextColumn("{task.percentage:3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), disable=not shown) as bars:
        running: list[int] = []

        def finish() -> None:
            for task in running:
                bars.update(bars.task_ids[task], total=100, completed=100)
            running.clear()

        def begin(title: str) -> Callable[[int], None]:
            finish()
            task = bars.add_task(title, total=None)
            running.append(bars.task_ids.index(task))
            return lambda percent: bars.update(task, total=100, completed=percent)

        yield begin
        finish()
