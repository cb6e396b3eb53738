"""Builds the native engine. Everything else about the package is in pyproject.toml.

UNLIMITEDWS_NATIVE    unset: compile where possible, else install without; 1: a failure is fatal; 0: do not try
UNLIMITEDWS_SANITIZE  sanitizers for gcc's or clang's -fsanitize=, say `address,undefined`
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

ROOT = Path(__file__).resolve().parent
ENGINE = "unlimitedws/engine"
NATIVE_FOLDERS = (ENGINE, "unlimitedws/bench")
NATIVE = os.environ.get("UNLIMITEDWS_NATIVE", "")
SANITIZE = os.environ.get("UNLIMITEDWS_SANITIZE", "")
# Objects of a sanitized build must never be taken for those of a plain one: each has its own folder.
BUILD_BASE = f"build/sanitized-{SANITIZE.replace(',', '-')}" if SANITIZE else "build"

NOT_BUILT = """
----------------------------------------------------------------------
unlimitedws: the native engine was NOT built, the portable one (pure
Python, slower) will serve instead. The reason:

    {why}

To build it, install a C compiler and the Python headers
    Debian, Ubuntu   apt install gcc python3-dev
    Fedora, RHEL     dnf install gcc python3-devel
    Alpine           apk add gcc musl-dev linux-headers python3-dev
and install again: pip install --force-reinstall --no-cache-dir unlimitedws
----------------------------------------------------------------------
"""


def main() -> None:
    setup(
        ext_modules=extensions(),
        cmdclass={"build_ext": BuildNative},
        options={"build": {"build_base": BUILD_BASE}},
    )


def extensions() -> list[Extension]:
    """The modules to compile: each .pyx of the engine and the load generator; none when they were switched off."""
    if NATIVE not in ("", "0", "1"):
        sys.exit(f"UNLIMITEDWS_NATIVE cannot be {NATIVE!r}; accepted: 0 (do not build the native engine), 1 (it must be built)")
    if NATIVE == "0":
        return []
    headers = [str(path.relative_to(ROOT)) for path in sorted((ROOT / ENGINE).glob("*.h"))]
    return [
        Extension(
            f"{folder.replace('/', '.')}.{path.stem}",
            [f"{folder}/{path.name}"],
            include_dirs=[ENGINE],
            depends=headers,
            extra_compile_args=compile_flags(),
            extra_link_args=sanitizer_flags(),
        )
        for folder in NATIVE_FOLDERS
        for path in sorted((ROOT / folder).glob("*.pyx"))
    ]


def compile_flags() -> list[str]:
    """No -march: a wheel runs on every machine of its architecture. Comparisons of mixed signs are Cython's own, which knows the types."""
    optimized = ["-O1", "-g", "-fno-omit-frame-pointer", *sanitizer_flags()] if SANITIZE else ["-O2"]
    return [*optimized, "-Wno-sign-compare"]


def sanitizer_flags() -> list[str]:
    if not SANITIZE:
        return []
    if not re.fullmatch(r"[a-z-]+(,[a-z-]+)*", SANITIZE):
        sys.exit(f"UNLIMITEDWS_SANITIZE cannot be {SANITIZE!r}; accepted: names for -fsanitize=, such as address,undefined")
    return [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all"]


class BuildNative(build_ext):  # type: ignore[misc]
    """Compiles the native engine; where that cannot be done, says why and goes on without it.

    The portable engine keeps the same contract, so half an install is not what this leaves: unless
    UNLIMITEDWS_NATIVE=1 asks for the native one."""

    def build_extensions(self) -> None:
        try:
            translate(self.extensions, force=bool(self.force))
            super().build_extensions()
        # A missing compiler, a missing Python.h, a missing Cython, an old gcc: every one of them
        # surfaces as one of these. A bug of this file does not.
        except (CCompilerError, BaseError, ImportError, OSError) as error:
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        if NATIVE == "1":
            raise error
        # Without this, setuptools goes on to copy modules that do not exist.
        self.extensions[:] = []
        print(NOT_BUILT.format(why=f"{type(error).__name__}: {error}"), file=sys.stderr, flush=True)


def translate(extensions: list[Extension], *, force: bool) -> None:
    """Cython to C, under the build folder: the package's own folder keeps only what people wrote."""
    from Cython.Build import cythonize
    from Cython.Compiler.Errors import CompileError

    try:
        translated = cythonize(
            # Copies: cythonize returns bare extensions, which setuptools has not prepared.
            [Extension(extension.name, list(extension.sources)) for extension in extensions],
            build_dir=f"{BUILD_BASE}/cython",
            compiler_directives={"language_level": 3, "annotation_typing": False},
            force=force,
        )
    except CompileError as error:
        raise BaseError(f"Cython could not translate the engine: {error}") from error
    sources = {extension.name: extension.sources for extension in translated}
    for extension in extensions:
        extension.sources = sources[extension.name]


main()
