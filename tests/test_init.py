from __future__ import annotations

import subprocess
import sys

import pytest

import unlimitedws


@pytest.mark.parametrize("name", unlimitedws.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(unlimitedws, name) is not None


def test_every_home_is_of_an_exported_name() -> None:
    assert set(unlimitedws.HOMES) < set(unlimitedws.__all__)


def test_all_errors_are_exported() -> None:
    tree = {unlimitedws.UnlimitedwsError}
    while more := {kind for parent in tree for kind in parent.__subclasses__()} - tree:
        tree |= more
    assert {kind.__name__ for kind in tree if kind.__module__ == "unlimitedws.errors"} <= set(unlimitedws.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Handler'"):
        unlimitedws.Handler  # noqa: B018


def test_dir_shows_what_is_not_loaded_yet() -> None:
    assert set(unlimitedws.__all__) <= set(dir(unlimitedws))


def test_star_import_gives_the_exported_names() -> None:
    names: dict[str, object] = {}
    exec("from unlimitedws import *", names)
    assert set(unlimitedws.__all__) <= set(names)


def test_an_app_that_only_declares_handlers_loads_no_engine_and_no_loop() -> None:
    code = (
        "import sys\nfrom unlimitedws import Handlers, blocking\n"
        "print([name for name in sys.modules if name in ('uvloop', 'asyncio', 'wsproto', 'h11', 'psutil') or 'unlimitedws.engine' in name])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
