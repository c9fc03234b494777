"""A child process is held to its limits, and nothing of it stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bpu_deploy_tools.hbdk import Limits
from bpu_deploy_tools.hbdk.process import MOST_KEPT, Finished, run_limited


def run(code: str, folder: Path, seconds: float = 60.0, memory_gib: float = 4.0) -> Finished:
    limits = Limits(seconds=seconds, memory_gib=memory_gib)
    return run_limited([sys.executable, "-c", code], cwd=folder, environment=os.environ, limits=limits)


def test_output_of_both_streams_and_the_code_come_back(tmp_path: Path) -> None:
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr, flush=True); sys.exit(3)"
    assert run(code, tmp_path) == Finished(code=3, output="out\nerr\n")


def test_child_that_takes_too_long_is_stopped_with_its_own_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)"
    )
    done = run(code, tmp_path, seconds=5)
    assert done.code is None
    assert _ends(int(done.output))


def test_lower_limit_of_the_user_stays(tmp_path: Path) -> None:
    inner = "import resource; print(resource.getrlimit(resource.RLIMIT_AS)[1] >> 20)"
    outer = (
        "import os, pathlib, resource, sys\n"
        "from bpu_deploy_tools.hbdk import Limits\n"
        "from bpu_deploy_tools.hbdk.process import run_limited\n"
        "resource.setrlimit(resource.RLIMIT_AS, (96 << 30, 96 << 30))\n"  # more than any build of torch maps
        f"command, folder = [sys.executable, '-c', {inner!r}], pathlib.Path({str(tmp_path)!r})\n"
        "done = run_limited(command, cwd=folder, environment=os.environ, limits=Limits(memory_gib=128.0))\n"
        "print(done.output)"
    )
    done = subprocess.run([sys.executable, "-c", outer], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{96 << 10}"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has ended")
def test_child_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(f'{{os.getpid()}}.'); time.sleep(600)"
    parent = (
        "import os, pathlib, sys\n"
        "from bpu_deploy_tools.hbdk import Limits\n"
        "from bpu_deploy_tools.hbdk.process import run_limited\n"
        f"command = [sys.executable, '-c', {child!r}]\n"
        f"run_limited(command, cwd=pathlib.Path({str(tmp_path)!r}), environment=os.environ, limits=Limits())"
    )
    running = subprocess.Popen([sys.executable, "-c", parent])
    try:
        while not (note.is_file() and note.read_text().endswith(".")):
            assert running.poll() is None
            time.sleep(0.1)
    finally:
        running.kill()
        running.wait()
    assert _ends(int(note.read_text().removesuffix(".")))


def _ends(process: int) -> bool:
    """Whether a process that was killed is gone; it would sleep for ten minutes otherwise."""
    for _ in range(300):
        if not _runs(process):
            return True
        time.sleep(0.1)
    return False


def _runs(process: int) -> bool:
    """Whether a process still runs; one that waits for its parent's parent to notice its end does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_child_that_takes_too_much_memory_fails_by_itself(tmp_path: Path) -> None:
    done = run("x = bytearray(2 * 2**30)", tmp_path, memory_gib=1)
    assert done.code == 1
    assert "MemoryError" in done.output


def test_only_the_last_part_of_much_output_is_kept(tmp_path: Path) -> None:
    done = run(f"print('x' * {3 * MOST_KEPT} + 'end')", tmp_path)
    assert len(done.output) == MOST_KEPT
    assert done.output.endswith("xend\n")


def test_output_is_told_while_it_comes(tmp_path: Path) -> None:
    heard: list[str] = []
    command = [sys.executable, "-c", "print('10%', flush=True); print('20%', flush=True)"]
    run_limited(command, cwd=tmp_path, environment=os.environ, limits=Limits(), on_text=heard.append)
    assert "".join(heard) == "10%\n20%\n"


def test_child_gets_no_input_and_leaves_no_core_dump(tmp_path: Path) -> None:
    code = "import os, sys; assert sys.stdin.read() == ''; os.abort()"
    assert run(code, tmp_path).code == -6
    assert not list(tmp_path.iterdir())


def test_program_that_is_not_there_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run_limited(["/nonexistent/program"], cwd=tmp_path, environment={}, limits=Limits())
