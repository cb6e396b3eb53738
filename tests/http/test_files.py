from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from tests.serving import descriptors
from unlimitedws.http.files import File


def test_a_file_tells_its_size_and_gives_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    file = File(tmp_path / "a")
    assert (file.size, file.read(0, 4), file.read(8, 4), file.read(10, 4)) == (10, b"0123", b"89", b"")
    file.close()


def test_the_tag_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    before = File(path).etag
    assert File(path).etag == before
    path.write_bytes(b"22")
    other_size = File(path).etag
    os.utime(path, ns=(1, 1))
    assert len({before, other_size, File(path).etag}) == 3
    assert before[0] == before[-1] == '"'


def test_the_date_is_that_of_the_last_change(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    os.utime(tmp_path / "a", (0, 1_000_000_000))
    assert File(tmp_path / "a").last_modified == "Sun, 09 Sep 2001 01:46:40 GMT"


def test_the_real_path_is_found_through_links(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").symlink_to("a")
    assert File(tmp_path / "b").real_path == str((tmp_path / "a").resolve())


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = descriptors()
    for path, error in ((tmp_path, IsADirectoryError), (tmp_path / "pipe", PermissionError), ("/dev/null", PermissionError)):
        with pytest.raises(error):
            File(path)
    with pytest.raises(FileNotFoundError):
        File(tmp_path / "none")
    assert descriptors() == before


def test_a_file_is_closed_once_and_also_when_it_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    gc.collect()
    before = descriptors()
    file, forgotten = File(tmp_path / "a"), File(tmp_path / "a")
    file.close()
    file.close()
    del forgotten
    gc.collect()
    assert descriptors() == before
