"""The line between the floors: imports only point down."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "unlimitedws"

# From the ground up. A module stands on the floor of its longest prefix here.
FLOORS = (
    (
        "errors",
        "config",
        "cost",
        "farewell",
        "activation",
        "blame",
        "functions",
        "hostnames",
        "buckets",
        "controlfile",
        "pace",
        "listener",
        "logs",
        "importing",
        "memory",
        "output",
        "place",
        "requirements",
        "socketfile",
        "sources",
        "trust",
        "wire.address",
    ),
    ("wire",),
    ("engine", "proxies", "tls"),
    (
        "connection",
        "handlers",
        "access",
        "gate",
        "pressure",
        "checks",
        "cookies",
        "headers",
        "request",
        "signed_cookies",
        "verdict",
        "threads",
        "turns",
        "descriptors",
        "expiry",
        "http.files",
        "http.request",
        "http.response",
        "http.routes",
        "http.static",
    ),
    ("app",),
    ("dispatch", "admission", "deciding", "front", "handover", "http", "lifespan", "worker", "server"),
    ("doctor",),  # below the supervisor, which runs its check-up at the start
    ("supervisor",),
    ("bench", "ctl", "top"),
    ("cli", "commands", "__main__", "supervisor.__main__"),
)
FRONT_DOOR = ""  # unlimitedws/__init__.py exports lazily: it stands above all, and nothing may lean on it


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def floor(module: str) -> int:
    fitting = [
        (len(name), number) for number, names in enumerate(FLOORS) for name in names if module == name or module.startswith(name + ".")
    ]
    assert fitting, f"unlimitedws.{module} stands on no floor: add it to FLOORS"
    return max(fitting)[1]


def imports_of(file: Path) -> Iterator[str]:
    """Modules of this package that a file imports, also inside functions, as dotted names without the package's own."""
    text = file.read_text()
    found = imports_of_python(file, text) if file.suffix in (".py", ".pyi") else imports_of_cython(text)
    for name in found:
        if name == "unlimitedws" or name.startswith("unlimitedws."):
            yield name.removeprefix("unlimitedws").removeprefix(".")


def imports_of_python(file: Path, text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text, str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide where they point"
            # `from unlimitedws.wire import handshake` means unlimitedws.wire.handshake; a function is not a module
            for alias in node.names:
                yield f"{node.module}.{alias.name}" if is_module(f"{node.module}.{alias.name}") else str(node.module)


def imports_of_cython(text: str) -> Iterator[str]:
    for module, names in re.findall(r"^\s*from\s+([\w.]+)\s+c?import\s+(\([^)]*\)|.+)$", text, re.MULTILINE):
        for name in re.findall(r"\w+", names):
            yield f"{module}.{name}" if is_module(f"{module}.{name}") else module
    yield from re.findall(r"^\s*c?import\s+([\w.]+)", text, re.MULTILINE)


def is_module(name: str) -> bool:
    if not name.startswith("unlimitedws."):
        return False
    path = ROOT.joinpath(*name.split(".")[1:])
    return path.is_dir() or any(path.with_suffix(suffix).exists() for suffix in (".py", ".pyx", ".pxd"))


FILES = sorted(file for suffix in ("py", "pyi", "pyx", "pxd") for file in ROOT.rglob(f"*.{suffix}"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_only_point_down(file: Path) -> None:
    module = name_of(file)
    if module == FRONT_DOOR:
        return
    for imported in imports_of(file):
        if imported == FRONT_DOOR:  # only for what the front door itself defines
            assert "__version__" in file.read_text(), f"{module} imports from the front door; import from where the name lives"
            continue
        assert floor(imported) <= floor(module), f"{module} reaches up to {imported}"


def test_the_front_door_imports_nothing_when_it_is_opened() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    names = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert [name for name in names if name and name.startswith("unlimitedws")] == []


def test_wire_knows_no_socket_no_clock_and_no_loop() -> None:
    outside = {"socket", "select", "asyncio", "time", "threading", "logging", "os"}
    for file in (ROOT / "wire").glob("*.py"):
        for name in imports_of_python(file, file.read_text()):
            assert name.partition(".")[0] not in outside, f"wire/{file.name} imports {name}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import unlimitedws.app", ["unlimitedws.app"]),
        ("def f():\n    from unlimitedws.wire import handshake", ["unlimitedws.wire.handshake"]),
        ("from unlimitedws.app import load", ["unlimitedws.app"]),
    ],
)
def test_the_reader_of_imports_sees_those_of_python(text: str, found: list[str]) -> None:
    assert list(imports_of_python(Path("x.py"), text)) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from unlimitedws.engine.codec cimport Reader, feed", ["unlimitedws.engine.codec", "unlimitedws.engine.codec"]),
        ("from unlimitedws.engine cimport (\n    codec,\n)", ["unlimitedws.engine.codec"]),
        ("from unlimitedws.engine cimport codec", ["unlimitedws.engine.codec"]),
        ("cimport unlimitedws.engine.codec", ["unlimitedws.engine.codec"]),
    ],
)
def test_the_reader_of_imports_sees_those_of_cython(text: str, found: list[str]) -> None:
    assert list(imports_of_cython(text)) == found


def test_a_module_that_reaches_up_would_be_noticed() -> None:
    assert floor("supervisor.fleet") > floor("worker") > floor("handlers") > floor("engine.portable") > floor("wire.head") > floor("config")
    assert floor("supervisor.__main__") > floor("supervisor.supervisor")
