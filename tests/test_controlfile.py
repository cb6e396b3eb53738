"""Where the control socket is: the server and who looks for it come to the same place."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from unlimitedws import controlfile
from unlimitedws.controlfile import AUTO, candidates, place_of

UID = os.geteuid()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on it. Its paths may be too long for a socket: sockets are made under a short name, and moved."""
    for name in ("run", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(controlfile, "RUN", tmp_path / "run")
    monkeypatch.setattr(controlfile, "TMP", tmp_path / "tmp")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put_socket(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("made.sock")
    os.rename("made.sock", path)
    return path


def test_a_path_that_was_given_is_the_place(root: Path) -> None:
    assert place_of("x/y.sock", 8000, {"RUNTIME_DIRECTORY": "/run/app"}, 0) == Path("x/y.sock")


@pytest.mark.parametrize(
    ("environ", "uid", "place"),
    [
        ({"RUNTIME_DIRECTORY": "/run/app:/run/other", "XDG_RUNTIME_DIR": "/run/user/1000"}, 1000, "/run/app/unlimitedws-8000.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/1000"}, 1000, "/run/user/1000/unlimitedws-8000.sock"),
    ],
)
def test_the_runtime_directory_of_the_unit_comes_first_then_the_users(environ: dict[str, str], uid: int, place: str) -> None:
    assert place_of(AUTO, 8000, environ, uid) == Path(place)


def test_root_has_it_in_run_and_others_in_a_folder_of_their_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place_of(AUTO, 8000, {}, 0) == root / "run/unlimitedws-8000.sock"
    someone = UID + 1
    monkeypatch.setattr(controlfile, "is_own", lambda folder, uid: uid == someone)
    assert place_of(AUTO, None, {}, someone) == root / f"tmp/unlimitedws-{someone}/unlimitedws.sock"
    assert stat.S_IMODE((root / f"tmp/unlimitedws-{someone}").stat().st_mode) == 0o700


def test_a_folder_is_ones_own_where_nobody_else_can_write(root: Path) -> None:
    folder = root / "tmp/mine"
    folder.mkdir()
    for mode, is_own in ((0o700, True), (0o755, True), (0o770, False), (0o702, False)):
        folder.chmod(mode)
        assert controlfile.is_own(folder, UID) == is_own
    folder.chmod(0o700)
    assert not controlfile.is_own(folder, UID + 1)
    (root / "tmp/link").symlink_to(folder)
    assert not controlfile.is_own(root / "tmp/link", UID)


def test_a_folder_in_tmp_that_somebody_else_made_first_is_not_used(root: Path) -> None:
    victim = UID + 1
    folder = root / f"tmp/unlimitedws-{victim}"
    folder.mkdir()
    with pytest.raises(PermissionError, match="not this user's alone"):
        place_of(AUTO, 8000, {}, victim)
    put_socket(folder / "unlimitedws-8000.sock")
    assert candidates({}, victim) == []


def test_every_place_is_looked_at_and_nothing_but_sockets_is_found(root: Path) -> None:
    there = [
        put_socket(root / "user/unlimitedws-8001.sock"),
        put_socket(root / "run/unlimitedws-8000.sock"),
        put_socket(root / "run/app/unlimitedws-443.sock"),
        put_socket(root / f"run/user/{UID}/unlimitedws-8002.sock"),
    ]
    put_socket(root / "run/other.sock")
    (root / "run/unlimitedws-1.sock").write_text("no socket")
    assert candidates({"XDG_RUNTIME_DIR": str(root / "user")}, UID) == there
    # Of a unit's own command only its own server is meant.
    assert candidates({"XDG_RUNTIME_DIR": str(root / "user"), "RUNTIME_DIRECTORY": str(root / "run/app")}, UID) == [there[2]]


def test_a_socket_that_is_reached_on_two_ways_is_one(root: Path) -> None:
    place = put_socket(root / "run/app/unlimitedws-443.sock")
    assert candidates({"XDG_RUNTIME_DIR": str(root / "run/app")}, UID) == [place]
