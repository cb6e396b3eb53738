"""The Autobahn test suite itself: where its Python 2.7 is, its own installation, and running it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

REQUIREMENT = "autobahntestsuite==25.10.1"

# Its packages lie in a folder of their own, whose .pth files count (zope is a namespace package).
FIND = "import sys, site; site.addsitedir(sys.argv.pop(1)); "
RUN = FIND + "from autobahntestsuite.wstest import run; run()"
LIST = FIND + (
    "import json; import autobahntestsuite.fuzzing as f; "
    "cases = f.CaseSet(f.CaseSetname, f.CaseBasename, f.Cases, f.CaseCategories, f.CaseSubCategories); "
    "print(json.dumps(cases.parseSpecCases(json.loads(sys.argv[1]))))"
)


class SuiteUnavailable(Exception):
    """The suite cannot be run here; the text says what is missing and how to get it."""


class Suite:
    """An installed Autobahn test suite. folder: where it is installed, once; made if it is not there.

    Raises SuiteUnavailable."""

    def __init__(self, folder: Path) -> None:
        self.python = python2()
        self.site = folder / "site"
        if not (self.site / "autobahntestsuite").is_dir():
            install(self.python, self.site)

    def cases(self, patterns: Sequence[str], excluded: Sequence[str]) -> list[str]:
        """Ids of the cases that a list of patterns selects, such as `9.1.1`."""
        spec = json.dumps({"cases": list(patterns), "exclude-cases": list(excluded)})
        found = subprocess.run([self.python, "-c", LIST, str(self.site), spec], capture_output=True, text=True, check=True)
        return [str(case) for case in json.loads(found.stdout.splitlines()[-1])]

    def start(self, url: str, agent: str, cases: Sequence[str], reports: Path) -> subprocess.Popen[bytes]:
        """Starts a fuzzing client; at its end `reports/index.json` holds the verdicts."""
        shutil.rmtree(reports, ignore_errors=True)
        reports.mkdir(parents=True)
        spec = {"outdir": str(reports), "servers": [{"agent": agent, "url": url}], "cases": list(cases)}
        (reports / "spec.json").write_text(json.dumps(spec))
        command = [self.python, "-c", RUN, str(self.site), "--mode", "fuzzingclient", "--spec", str(reports / "spec.json")]
        with (reports / "client.log").open("wb") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def candidates() -> Iterator[str]:
    """Where a Python 2.7 may be: named by PYTHON2, on the path, of pyenv."""
    named = os.environ.get("PYTHON2")
    if named:
        yield named
    for name in ("python2.7", "python2", "pypy2", "pypy"):
        found = shutil.which(name)
        if found:
            yield found
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from (str(path) for path in sorted(root.glob("versions/*/bin/python2.7")))


def python2() -> str:
    """A Python 2.7 with pip that really starts (a shim of pyenv may not). Raises SuiteUnavailable."""
    check = "import sys, ssl, pip; sys.exit(sys.version_info[:2] != (2, 7))"
    for python in candidates():
        try:
            if subprocess.run([python, "-c", check], capture_output=True).returncode == 0:
                return python
        except OSError:
            continue
    raise SuiteUnavailable(
        "the Autobahn test suite needs a Python 2.7 with pip, and none was found on the path, of pyenv or as PYTHON2.\n"
        "To get one: pyenv install 2.7.18 (or PyPy 2.7 from https://pypy.org/download.html), then PYTHON2=/path/to/python2.7 make autobahn"
    )


def install(python: str, site: Path) -> None:
    """Installs the suite and what it needs. Raises SuiteUnavailable."""
    print(f"installing {REQUIREMENT} for {python}", flush=True)
    fresh = site.with_name("site.new")
    shutil.rmtree(fresh, ignore_errors=True)
    command = [python, "-m", "pip", "install", "--quiet", "--target", str(fresh), REQUIREMENT]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode != 0:
        raise SuiteUnavailable(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
    shutil.rmtree(site, ignore_errors=True)
    fresh.rename(site)
