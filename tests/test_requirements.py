"""Another system or an older Python gets a sentence, not a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from unlimitedws import requirements
from unlimitedws.errors import PlatformUnsupported

# The modules that Python 3.10 has not got are taken away, so that a careless import fails as it would there.
PRETEND = """
import sys
for name in ("tomllib", "uvloop", "select" if {platform!r} != "linux" else "tomllib"):
    sys.modules[name] = None
sys.platform, sys.version_info = {platform!r}, {version!r}
from unlimitedws.cli import main
sys.exit(main(["serve", "app:handlers"]))
"""


def test_this_machine_will_do() -> None:
    requirements.check()


@pytest.mark.parametrize(("platform", "version"), [("linux", (3, 10, 9)), ("darwin", (3, 12, 0)), ("win32", (3, 13, 0))])
def test_another_machine_is_named_in_the_error(platform: str, version: tuple[int, int, int]) -> None:
    with pytest.raises(PlatformUnsupported, match=rf"needs Linux and Python 3.11 or newer; this is {platform} with Python 3\.1"):
        requirements.check(platform, version)


@pytest.mark.parametrize(("platform", "version"), [("linux", (3, 10, 9)), ("darwin", (3, 12, 0))])
def test_the_command_line_says_so_before_it_imports_what_would_fail(platform: str, version: tuple[int, int, int]) -> None:
    program = PRETEND.format(platform=platform, version=version)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr == (
        f"unlimitedws: unlimitedws needs Linux and Python 3.11 or newer; this is {platform} with Python {'.'.join(map(str, version))}\n"
    )
    assert done.returncode == 1
