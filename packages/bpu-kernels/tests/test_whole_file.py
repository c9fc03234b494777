"""Places for files: told whether they can be written to before anything is computed for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bpu_kernels import ArgumentError
from bpu_kernels.whole_file import expect_folder, expect_place, replace_file

UNWRITABLE = Path("/proc")
"""A folder of Linux in which nobody can make a file, not even root."""


@pytest.mark.parametrize("name", ["", "new", "new/deeper"])
def test_folder_that_is_there_or_can_be_made_is_accepted(name: str, tmp_path: Path) -> None:
    expect_folder(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_no_folder_is_accepted() -> None:
    expect_folder(None)


def test_relative_folder_is_looked_at_from_where_the_program_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expect_folder("reports/today")


@pytest.mark.parametrize("name", ["file", "file/deeper"])
def test_folder_where_a_file_is_gets_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="file is a file; give the name of a folder"):
        expect_folder(tmp_path / name)


def test_place_for_a_file_needs_its_folder(tmp_path: Path) -> None:
    expect_place(tmp_path / "net.hbm")
    with pytest.raises(FileNotFoundError, match="does not exist; make it first"):
        expect_place(tmp_path / "new" / "net.hbm")
    with pytest.raises(ArgumentError, match="is a folder; give the name of a file"):
        expect_place(tmp_path)


@pytest.mark.skipif(not UNWRITABLE.is_dir(), reason="no /proc on this system")
@pytest.mark.parametrize(("expect", "name"), [(expect_folder, "new"), (expect_place, "net.hbm")])
def test_folder_that_takes_no_files_is_named(expect: Callable[[Path], None], name: str) -> None:
    with pytest.raises(OSError, match=r"no file can be written here .*/proc'"):
        expect(UNWRITABLE / name)


def test_replaced_file_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        replace_file(tmp_path / "net.bpu", content)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]
