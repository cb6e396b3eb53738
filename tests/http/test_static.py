from __future__ import annotations

import os
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tests.http.asking import plain
from unlimitedws.http.response import Response
from unlimitedws.http.static import Found, Static
from unlimitedws.request import Request
from unlimitedws.wire.handshake import path_bytes, percent_decode

CONTENT = b"0123456789"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "public"
    (root / "sub").mkdir(parents=True)
    (root / "page.html").write_bytes(CONTENT)
    (root / "naïve name.txt").write_bytes(CONTENT)
    (root / "sub" / "index.html").write_bytes(CONTENT)
    (root / ".secret").write_bytes(b"secret")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_bytes(b"secret")
    (tmp_path / "outside.txt").write_bytes(b"secret")
    (tmp_path / "public-not").mkdir()
    (tmp_path / "public-not" / "a.txt").write_bytes(b"secret")
    (root / "link-out").symlink_to(tmp_path / "outside.txt")
    (root / "link-folder").symlink_to(tmp_path)
    (root / "link-near").symlink_to(tmp_path / "public-not" / "a.txt")
    (root / "link-in").symlink_to("page.html")
    return root


def ask(folder: Path, target: str, *headers: str, method: str = "GET", prefix: str = "/static/") -> Any:
    """The answer to a request; of a file its content in place of `Found`."""
    static = Static(str(folder), prefix)
    path = percent_decode(path_bytes(target.encode()))
    if not static.serves(path):
        return None
    answer = static.answer(Request(plain(method, target, *headers), remote_address=("192.0.2.1", 1), path=path))
    if isinstance(answer, Found):
        content = answer.file.read(answer.start, answer.size)
        answer.file.close()
        return answer.response, content
    return answer


def header(response: Response, name: str) -> str | None:
    return dict(response.lines).get(name)


def test_a_file_is_served_with_its_type_and_what_a_cache_needs(folder: Path) -> None:
    response, content = ask(folder, "/static/page.html")
    assert (response.status, content) == (200, CONTENT)
    assert header(response, "Content-Type") == "text/html; charset=utf-8"
    assert header(response, "ETag")
    assert header(response, "Last-Modified")
    assert header(response, "X-Content-Type-Options") == "nosniff"


@pytest.mark.parametrize("target", ["/static/page.html?v=2", "/static/na%C3%AFve%20name.txt", "/static/sub/", "/static/link-in"])
def test_names_are_decoded_folders_have_an_index_and_links_inside_are_followed(folder: Path, target: str) -> None:
    assert ask(folder, target)[1] == CONTENT


@pytest.mark.parametrize(
    "target",
    [
        "/static/none.html",
        "/static/",  # has no index
        "/static",
        "/page.html",
        "/staticpage.html",
        "/static/page.html/",
        "/static/page.html/x",
        "/static/../outside.txt",
        "/static/%2e%2e/outside.txt",
        "/static/%2e%2e%2foutside.txt",
        "/static/..%2foutside.txt",
        "/static/sub/../../outside.txt",
        "/static/sub/..",
        "/static/./page.html",
        "/static//page.html",
        "/static//etc/passwd",
        "/static/%2fetc/passwd",
        "/static/..\\outside.txt",
        "/static/.secret",
        "/static/%2esecret",
        "/static/.git/config",
        "/static/page.html%00.txt",
        "/static/%00",
        "/static/link-out",
        "/static/link-folder/outside.txt",
        "/static/link-folder/public/page.html/../../outside.txt",
        "/static/link-near",
        "/static/" + "a" * 5000,
        "/static/" + "a/" * 2000,
    ],
)
def test_nothing_else_is_found(folder: Path, target: str) -> None:
    assert ask(folder, target) is None


def test_a_pipe_in_the_folder_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert ask(folder, "/static/pipe") is None


def test_a_file_that_may_not_be_read_is_not_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)  # the tests may run as root, who may read everything
    assert ask(folder, "/static/page.html") is None


@pytest.mark.parametrize(
    ("target", "location"),
    [("/static/sub", "/static/sub/"), ("/static/sub?a=b", "/static/sub/"), ("http://other/static/sub", "/static/sub/")],
)
def test_a_folder_without_its_slash_is_redirected_within_this_server(folder: Path, target: str, location: str) -> None:
    response = ask(folder, target)
    assert (response.status, header(response, "Location")) == (308, location)


def test_the_whole_site_may_be_a_folder(folder: Path) -> None:
    assert ask(folder, "/page.html", prefix="/")[1] == CONTENT
    assert ask(folder, "//page.html", prefix="/") is None


def test_a_folder_that_is_a_link_itself_is_served(folder: Path) -> None:
    link = folder.parent / "current"
    link.symlink_to(folder)
    assert ask(link, "/static/page.html")[1] == CONTENT


def test_a_client_that_has_the_file_is_told_so(folder: Path) -> None:
    response, _ = ask(folder, "/static/page.html")
    etag, date = header(response, "ETag"), header(response, "Last-Modified")
    for asked in (f"If-None-Match: {etag}", f'If-None-Match: "x", W/{etag}', "If-None-Match: *", f"If-Modified-Since: {date}"):
        unchanged = ask(folder, "/static/page.html", asked)
        assert (unchanged.status, header(unchanged, "ETag")) == (304, etag)


def test_a_client_that_has_another_file_gets_this_one(folder: Path) -> None:
    long_ago, far = formatdate(1, usegmt=True), formatdate(4e9, usegmt=True)
    for asked in (
        ['If-None-Match: "x"'],
        [f"If-Modified-Since: {long_ago}"],
        ["If-Modified-Since: yesterday"],
        ['If-None-Match: "x"', f"If-Modified-Since: {far}"],  # the tag has the say
    ):
        assert ask(folder, "/static/page.html", *asked)[1] == CONTENT


@pytest.mark.parametrize(
    ("asked", "content", "said"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=4-", b"456789", "bytes 4-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-30", CONTENT, "bytes 0-9/10"),
        ("bytes=8-99999999999999", b"89", "bytes 8-9/10"),
    ],
)
def test_a_part_of_a_file_is_served(folder: Path, asked: str, content: bytes, said: str) -> None:
    response, sent = ask(folder, "/static/page.html", f"Range: {asked}")
    assert (response.status, sent, header(response, "Content-Range")) == (206, content, said)


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_a_part_that_is_not_there_is_refused(folder: Path, asked: str) -> None:
    response = ask(folder, "/static/page.html", f"Range: {asked}")
    assert (response.status, header(response, "Content-Range")) == (416, "bytes */10")


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,3-4", "bytes=x-", "bytes=5-2", "bytes=-", "lines=1-2", "bytes", "bytes=" + "9" * 99 + "-", "bytes=\u0663-"]
)
def test_a_range_that_is_none_gives_the_whole(folder: Path, asked: str) -> None:
    response, content = ask(folder, "/static/page.html", f"Range: {asked}")
    assert (response.status, content) == (200, CONTENT)


def test_a_part_is_given_only_of_the_file_that_the_client_knows(folder: Path) -> None:
    etag = header(ask(folder, "/static/page.html")[0], "ETag")
    assert ask(folder, "/static/page.html", "Range: bytes=0-1", f"If-Range: {etag}")[1] == b"01"
    assert ask(folder, "/static/page.html", "Range: bytes=0-1", 'If-Range: "x"')[1] == CONTENT
    assert ask(folder, "/static/page.html", "Range: bytes=0-1", method="HEAD")[1] == CONTENT
