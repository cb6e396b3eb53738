"""The stubs of the load generator's native modules name exactly what the modules export."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import unlimitedws.bench
from tests.engine.test_stubs import exported, functions, is_usable, members, named, parameters, public

FOLDER = Path(unlimitedws.bench.__file__).parent
STUBBED = ("answer", "board", "swarm")


@pytest.mark.parametrize("name", STUBBED)
def test_a_stub_names_what_its_module_exports_and_the_members_of_each_class(name: str) -> None:
    real = exported(importlib.import_module(f"unlimitedws.bench.{name}"))
    stub = named(ast.parse((FOLDER / f"{name}.pyi").read_text()).body)
    assert set(stub) == set(real)
    for key, value in real.items():
        if inspect.isclass(value):
            assert members(stub[key]) == set(public(vars(value)))


@pytest.mark.parametrize("name", STUBBED)
def test_a_stub_gives_the_parameters_that_the_source_has(name: str) -> None:
    source = (FOLDER / f"{name}.pyx").read_text()
    for function in functions(named(ast.parse((FOLDER / f"{name}.pyi").read_text()).body).values()):
        wanted = [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]
        assert any(written == wanted for written in parameters(source, function.name)), f"{function.name}({', '.join(wanted)})"


def test_every_module_with_names_for_python_has_a_stub() -> None:
    modules = {path.stem: importlib.import_module(f"unlimitedws.bench.{path.stem}") for path in FOLDER.glob("*.pyx")}
    assert {name for name, module in modules.items() if any(map(is_usable, exported(module).values()))} == set(STUBBED)
