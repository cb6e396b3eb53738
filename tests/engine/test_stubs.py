"""The stubs of the native modules name exactly what the modules export, and keep the contract."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import unlimitedws.engine as engine

FOLDER = Path(engine.__file__).parent
STUBBED = ("accepting", "broadcasting", "clock", "codec", "connection", "head", "moving", "native", "pages", "pipe", "table")

if engine.why_not_native() is not None:
    pytest.skip(f"the native engine is not built: {engine.why_not_native()}", allow_module_level=True)


@pytest.fixture(params=STUBBED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_stub_names_what_its_module_exports(name: str) -> None:
    assert set(stubbed(name)) == set(exported(module(name)))


def test_a_stub_names_the_members_of_each_class(name: str) -> None:
    classes = {key: node for key, node in stubbed(name).items() if isinstance(node, ast.ClassDef)}
    real = {key: value for key, value in exported(module(name)).items() if inspect.isclass(value)}
    assert {key: members(node) for key, node in classes.items()} == {key: set(public(vars(value))) for key, value in real.items()}


def test_a_stub_gives_the_parameters_that_the_source_has(name: str) -> None:
    source = (FOLDER / f"{name}.pyx").read_text()
    for function in functions(stubbed(name).values()):
        wanted = [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]
        assert any(written == wanted for written in parameters(source, function.name)), f"{function.name}({', '.join(wanted)})"


def test_the_stubs_have_every_method_of_the_contract() -> None:
    contract = named(ast.parse((FOLDER / "contract.py").read_text()).body)
    floors = [stubbed(name)[name.capitalize()] for name in ("accepting", "broadcasting", "clock", "moving", "table")]
    assert members(contract["Engine"]) <= members(stubbed("native")["Engine"]).union(*map(members, floors))
    assert members(contract["Connection"]) <= members(stubbed("connection")["Connection"])
    assert members(contract["Pipe"]) <= members(stubbed("pipe")["Pipe"])


def test_every_module_with_names_for_python_has_a_stub() -> None:
    with_names = {path.stem for path in FOLDER.glob("*.pyx") if any(map(is_usable, exported(module(path.stem)).values()))}
    assert with_names == set(STUBBED)


# ---- what there is, and what the stubs say


def module(name: str) -> ModuleType:
    return importlib.import_module(f"unlimitedws.engine.{name}")


def exported(module: ModuleType) -> dict[str, object]:
    """What a module defines itself: not what it imports, and nothing private."""
    own = {name: value for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)}
    return {name: value for name, value in own.items() if getattr(value, "__module__", None) in (None, module.__name__)}


def is_usable(value: object) -> bool:
    """Whether Python can do anything with it: a class of C methods only is for other native modules."""
    return not inspect.isclass(value) or any(public(vars(value)))


def stubbed(name: str) -> dict[str, ast.stmt]:
    return named(ast.parse((FOLDER / f"{name}.pyi").read_text()).body)


def named(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """The classes, functions and annotated names of a body."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return found


def members(node: ast.stmt) -> set[str]:
    assert isinstance(node, ast.ClassDef)
    return set(public(named(node.body)))


def public(names: object) -> Iterator[str]:
    return (name for name in names if not name.startswith("_"))  # type: ignore[attr-defined]


def functions(nodes: object) -> Iterator[ast.FunctionDef]:
    """All functions of a stub, methods included; constructors apart, whose source may be __cinit__."""
    for node in nodes:  # type: ignore[attr-defined]
        if isinstance(node, ast.ClassDef):
            yield from functions(node.body)
        elif isinstance(node, ast.FunctionDef) and node.name != "__init__" and not node.decorator_list:
            yield node


def parameters(source: str, function: str) -> Iterator[list[str]]:
    """The parameter names of each `def function(...)` in Cython source, C types left out."""
    for line in source.splitlines():
        head = line.strip()
        if head.startswith(f"def {function}("):
            written = head[head.index("(") + 1 : head.rindex(")")]
            words = (part.partition("=")[0].replace(" not None", "").split() for part in written.split(","))
            yield [word[-1] for word in words if word and word[-1] != "*"]
