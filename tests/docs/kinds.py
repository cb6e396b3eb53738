"""What a block of the manual is, and how it is judged. A kind that is not here fails the test: teach it how to judge that one."""

from __future__ import annotations

import configparser
import html.parser
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.programs import free_ports, judge, program
from tests.docs.pages import Block
from tests.docs.shell import check_line, lines_of, programs_of
from unlimitedws.sources import load
from unlimitedws.supervisor import metrics

JAVASCRIPT_NEEDS = "needs node (Debian, Ubuntu: apt install nodejs)"
INSTRUCTIONS = frozenset(("FROM", "COPY", "CMD", "RUN", "ENV", "USER", "WORKDIR", "EXPOSE", "ENTRYPOINT", "ARG"))


def python(block: Block, _: Path) -> None:
    compile(block.code, str(block), "exec")


def signature(block: Block, _: Path) -> None:
    assert block.page.startswith("reference/"), "signatures are for the pages that docs/generate.py writes; say `python` for code"


def shell(block: Block, _: Path) -> None:
    for line in lines_of(block.code):
        check_line(line)


def terminal(block: Block, folder: Path) -> None:
    """What is typed is judged; what is printed is only shown."""
    if any(programs_of(line) for line in lines_of(block.code)):
        shell(block, folder)
    else:
        assert not re.search(r"^(from|import) ", block.code, re.MULTILINE), "nobody runs code that is only indented: fence it, as ```python"


def settings_file(block: Block, folder: Path) -> None:
    file = folder / "unlimitedws.toml"
    file.write_text(block.code)
    load({}, {}, str(file))


def unit(block: Block, _: Path) -> None:
    text = block.code if "[" in block.code else f"[Unit]\n{block.code}"
    parsed = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    parsed.read_string(text)
    assert set(parsed.sections()) <= {"Unit", "Service", "Socket", "Install"}
    for line in re.findall(r"^Exec\w+=(.*unlimitedws .*)$", text, re.MULTILINE):
        check_line(line)


def questions(block: Block, _: Path) -> None:
    known = {name for family in metrics.families() for name in metrics.sample_names(family)}
    for name in re.findall(r"\bunlimitedws_\w+", block.code):
        assert name.removesuffix("_bucket") in known or name in known, name


def javascript(block: Block, folder: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip(JAVASCRIPT_NEEDS)
    file = folder / "code.js"
    file.write_text(block.code)
    done = subprocess.run([node, "--check", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def page(block: Block, folder: Path) -> None:
    html.parser.HTMLParser().feed(block.code)
    for script in re.findall(r"<script>(.*?)</script>", block.code, re.DOTALL):
        javascript(Block(block.page, block.line, "js", script), folder)


def dockerfile(block: Block, _: Path) -> None:
    assert {line.split()[0] for line in block.code.splitlines()} <= INSTRUCTIONS


def nginx(block: Block, folder: Path) -> None:
    file = folder / "nginx.conf"
    listening = re.sub(r"listen 443 ssl", f"listen 127.0.0.1:{free_ports(1)[0]}", block.code)
    file.write_text(f"pid {folder}/pid; events {{}} http {{ access_log off; {listening} }}")
    judge(program("nginx"), "-t", "-p", folder, "-c", file, "-e", folder / "error.log")


def haproxy(block: Block, folder: Path) -> None:
    file = folder / "haproxy.cfg"
    timeouts = "".join(f"    timeout {name} 1s\n" for name in ("connect", "client", "server"))
    file.write_text(f"defaults\n    mode http\n{timeouts}{block.code}\nfrontend all\n    bind unix@{folder}/s\n")
    judge(program("haproxy"), "-c", "-f", file)


def objects(block: Block, _: Path) -> None:
    for line in block.code.splitlines():
        json.loads(line)


def shown(block: Block, _: Path) -> None:
    assert block.code.strip()


KINDS: dict[str | None, Callable[[Block, Path], None]] = {
    None: terminal,
    "dockerfile": dockerfile,
    "haproxy": haproxy,
    "html": page,
    "ini": unit,
    "js": javascript,
    "json": objects,
    "nginx": nginx,
    "promql": questions,
    "py": signature,
    "python": python,
    "sh": shell,
    "text": shown,  # what a program prints, a drawing
    "toml": settings_file,
    "yaml": lambda block, _: yaml.safe_load(block.code),
}


def unknown(blocks: list[Block]) -> Iterator[str]:
    """Those of a kind that is not here."""
    for block in blocks:
        if block.language not in KINDS:
            yield f"{block}: {block.language or 'a fence without a language'}"
