"""Fixtures for all tests: both engines, and what must be given back after each test."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.engine.driver import Driver
from unlimitedws.engine import why_not_native

ENGINES = ("native", "portable")
CHOSEN = os.environ.get("UNLIMITEDWS_TEST_ENGINES", ",".join(ENGINES)).split(",")


def pytest_collection_finish() -> None:
    """Many a test collects garbage. What is here before the first one stays to the end, and no collection is to go through it again:
    that took 0.1 s each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn. A native engine that is not built is a failure, not a skip."""
    name = str(request.param)
    if name not in CHOSEN:
        pytest.skip(f"UNLIMITEDWS_TEST_ENGINES leaves out the {name} engine")
    if name == "native" and (why := why_not_native()):
        pytest.fail(
            f"the native engine is not built ({why}); build it (python setup.py build_ext --inplace), "
            "or set UNLIMITEDWS_TEST_ENGINES=portable to test the portable one alone"
        )
    return name


@pytest.fixture(params=ENGINES, ids=lambda name: f"to {name}")
def other_engine(request: pytest.FixtureRequest) -> str:
    """The engine at the other end, where connections move from one to another."""
    return str(request.param)


@pytest.fixture
def drive(engine_name: str) -> Iterator[Callable[..., Driver]]:
    """Makes engines that the test drives by hand: `drive(on_message=..., ping_interval_s=0.1)`; `engine`: of another kind.

    Afterwards everything that was borrowed must have come back."""
    before = (open_descriptors(), native_blocks())
    drivers: list[Driver] = []

    def make(*endpoints: dict[str, Any], **given: Any) -> Driver:
        drivers.append(Driver(given.pop("engine", engine_name), endpoints, given))
        return drivers[-1]

    yield make
    for driver in drivers:
        driver.close()
    drivers.clear()
    gc.collect()  # handlers of a test and its engine refer to each other; the native engine keeps a broadcast log for life
    assert (open_descriptors(), native_blocks()) == before, "descriptors or output blocks were left"


def open_descriptors() -> list[str]:
    """Descriptors of this process, with what they are (the one that lists them left out)."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except OSError:
            continue
    return sorted(found)


def native_blocks() -> int:
    try:
        from unlimitedws.engine.native import native_blocks as held
    except ImportError:
        return 0
    return int(held())
