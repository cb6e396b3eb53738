"""The command lines of the manual: ours are parsed by the real parser, of others it is known that they are meant."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

from unlimitedws.commands import COMMANDS, parser
from unlimitedws.config import DEFAULTS
from unlimitedws.sources import load

ROOT = Path(__file__).resolve().parents[2]
OTHERS = frozenset(
    (
        ".", "apt", "cat", "cd", "chgrp", "chmod", "chown", "conntrack", "cp", "dmesg", "docker", "echo", "export", "getconf", "grep",
        "head", "kill", "kubectl", "mkdir", "mv", "nproc", "openssl", "pidof", "pkill", "ps", "python", "python3", "sed", "ss", "ssh",
        "sudo", "sysctl", "systemctl", "systemd-run", "systemd-socket-activate", "taskset", "tests/bench/run", "top",
        "ulimit", "useradd", "watch", "xdg-open",
    )
)  # fmt: skip
OURS = frozenset(("unlimitedws", "pip", "make", "curl"))
FILES = frozenset({"static_dir"})
"""Settings whose value has to exist, which it does on the reader's machine."""

ADMIN_PATHS = ("/", "/stats", "/history", "/metrics", "/closes", "/config", "/healthz", "/readyz", "/connections")


def lines_of(code: str) -> list[str]:
    """Command lines, put together where a backslash ends one."""
    return [line for line in code.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]


def commands_of(line: str) -> list[list[str]]:
    """The simple commands of a line, each as its words: without assignments before it and redirections behind."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # an apostrophe in what a program prints
        return []
    found: list[list[str]] = [[]]
    skip = False
    for word in words:
        if set(word) <= set("();|&"):
            found.append([])
        elif set(word) <= set("<>"):
            skip = True  # the file it names
        elif skip:
            skip = False
        elif found[-1] or not re.match(r"\w+=", word):
            found[-1].append(word)
    return [words for words in found if words]


def programs_of(line: str) -> list[str]:
    """The programs that a line starts, where it is one that starts programs we know of; else nothing."""
    names = [Path(words[0]).name if "/" in words[0] and words[0] not in OTHERS else words[0] for words in commands_of(line)]
    return names if names and names[0] in OTHERS | OURS else []


def check_line(line: str) -> None:
    """Fails for a program that nobody has heard of, and for arguments of ours that our parsers refuse."""
    for words in commands_of(line):
        name = Path(words[0]).name
        if name == "sudo":
            words = words[3:] if words[1] == "-u" else words[1:]
            name = Path(words[0]).name
        if name == "unlimitedws":
            check_ours(words[1:])
        elif name in ("python", "python3") and words[1:2] == ["-m"]:
            check_module(words[2], words[3:])
        elif name == "systemd-socket-activate":
            check_ours(words[words.index("unlimitedws") + 1 :])
        elif name == "pip":
            check_extras(words)
        elif name == "make":
            check_targets(words[1:])
        elif name == "curl":
            check_addresses(words)
        else:
            assert words[0] in OTHERS, (
                f"{words[0]} is not a program that the manual uses so far: add it to tests/docs/shell.py, or mend {line!r}"
            )


def check_ours(arguments: list[str]) -> None:
    if any(word.startswith("[") or word.isupper() for word in arguments):
        assert arguments[0] in COMMANDS  # a synopsis, not a line to type
        return
    options = vars(parser().parse_args(arguments))
    load({name: value for name, value in options.items() if name in DEFAULTS and name not in FILES}, {})


def check_module(module: str, arguments: list[str]) -> None:
    if module in ("unlimitedws", "unlimitedws.supervisor"):
        check_ours(arguments if arguments[:1] == ["serve"] else ["serve", *arguments])
    else:
        assert importlib.util.find_spec(module), module


def check_extras(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        if found := re.search(r"\[([\w,]+)\]", word):
            assert set(found[1].split(",")) <= extras.keys(), word


def check_targets(words: list[str]) -> None:
    listed = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in words:
        assert "=" in word or word in listed, word


def check_addresses(words: list[str]) -> None:
    for word in words:
        if found := re.search(r"127\.0\.0\.1:9000(/\w*)", word):
            assert found[1] in ADMIN_PATHS, word
