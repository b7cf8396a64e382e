# `make demo` and `make test` set up all they need in .venv. Only `make test` installs anything outside this folder: as root on
# a system with apt-get, the programs that some tests need, and it says which. Otherwise those tests skip.
PYTHON ?= python3
BIN := .venv/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=constraints.txt $(BIN)/pip
# Every worker begins with its part of the suite in order, so that a module's fixtures are mostly made once, and takes from
# another's end when it is done, so that no long file is left to one worker alone.
PYTEST := $(BIN)/pytest --numprocesses auto --dist worksteal
# Before a program that reads this folder's packages rather than the wheel's.
ON_SOURCES := PYTHONPATH=$(CURDIR):$(CURDIR)/export:$(CURDIR)/serve
SOURCES := $(shell find arraylstm export serve -name '*.py' -o -name py.typed -o -path '*/console/*' -type f) \
	deploy/nginx-replicas.conf pyproject.toml README.md LICENSE

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-edge test-faults test-oldest slow lint imports format openapi constraints clean

help:
	@echo "make demo       train on a generated event log, export, serve, hold a short conversation (under three minutes)"
	@echo "make test       build the wheel, install it with all that the suite needs (as root also Debian packages), run the suite"
	@echo "make test-fast  while you work, under two minutes: the suite on the sources, without the checks of the wheel and without"
	@echo "                the slow tests in tests/slow.txt: most exports, training, server processes, runtimes, browsers"
	@echo "make test-edge  attack a server in forty ways, ten minutes, and write docs/edge.md: what another client saw, what the"
	@echo "                server used; status 1 if that client saw an error or the server died. Linux, two idle cores"
	@echo "make test-faults  kill, stop, cut off and fill servers and stores under load, a quarter of an hour; a line tells what"
	@echo "                the clients of each trial saw. Disks and networks are made for it, as root; else those trials skip"
	@echo "make slow       run the suite on the sources and list the slow tests in tests/slow.txt"
	@echo "make test-oldest  the main part of the suite on the sources, with the lowest versions that pyproject.toml allows"
	@echo "make lint       ruff, mypy --strict, and the direction of imports"
	@echo "make imports    print which module imports which and how often, one graph per package (DOT, for Graphviz)"
	@echo "make format     let ruff reformat and fix what it can"
	@echo "make openapi    write docs/openapi.json and docs/openapi-admin.json again"
	@echo "make clean      remove .venv, .reference, dist and demo"

# These tests run a second time, with the GPU's engine on the CPU.
ENGINE_TESTS := $(patsubst %,tests/serve/test_%.py,bulk events interleaved session_machine sessions slots state)

# What runs with the lowest versions, and what that needs beside them: neither a browser nor schemathesis.
OLDEST_TESTS := tests/serve tests/export tests/model --ignore tests/serve/edge \
	$(patsubst %,--ignore tests/serve/test_%.py,admin console console_sessions openapi origins)
OLDEST_TOOLS := $(shell grep -E '^(pytest|pytest-xdist|hypothesis|jsonschema_rs|matplotlib)==' constraints.txt)

demo: .venv/demo
	@$(BIN)/python examples/demo.py

test: .venv/dev .reference
	@sh tests/system-packages.sh
	$(PYTEST)
	$(PYTEST) --engine device $(ENGINE_TESTS)

# These two read the sources, so they need no new wheel after a change. They make .venv only if it is missing.
test-fast: $(if $(wildcard .venv/dev),,.venv/dev) .reference
	$(ON_SOURCES) $(PYTEST) -m "not slow" --ignore tests/test_packaging.py --ignore tests/serve/edge

# Two cores with nothing else to do give the figures their meaning; errors count on any machine.
test-edge: $(if $(wildcard .venv/dev),,.venv/dev)
	$(ON_SOURCES) $(BIN)/python benchmarks/edge.py --markdown docs/edge.md

# One trial after the other: each has servers, a store and clients of its own.
test-faults: $(if $(wildcard .venv/dev),,.venv/dev)
	@sh tests/system-packages.sh
	$(ON_SOURCES) $(BIN)/pytest tests/faults/test_*.py tests/faults/trials_*.py

slow: $(if $(wildcard .venv/dev),,.venv/dev) .reference
	$(ON_SOURCES) $(PYTEST) --find-slow --ignore tests/test_packaging.py
	$(ON_SOURCES) $(PYTEST) --find-slow --ignore tests/test_packaging.py -m "not slow"

# torch alone is the pinned one: older ones have no build for the CPU that pip finds.
test-oldest: | $(BIN)/python
	rm -rf .venv-oldest
	$(PYTHON) -m venv .venv-oldest
	$(BIN)/python tests/oldest.py serve export client redis data > .venv-oldest/lowest.txt
	PIP_CONSTRAINT=.venv-oldest/lowest.txt .venv-oldest/bin/pip install --quiet -e '.[serve,export,client,redis,data]' $(OLDEST_TOOLS)
	OMP_NUM_THREADS=1 .venv-oldest/bin/pytest --numprocesses auto --dist worksteal -m "not slow" $(OLDEST_TESTS)

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(ON_SOURCES) $(BIN)/lint-imports --no-logo

imports: .venv/dev
	@for package in arraylstm arraylstm_export arraylstm_serve; do \
		echo "// $$package"; \
		$(ON_SOURCES) $(BIN)/import-linter drawgraph $$package --show-import-totals --show-lazy-imports; \
	done

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

openapi: .venv/dev
	$(BIN)/python -c 'from arraylstm_serve.application import published; print(published(), end="")' > docs/openapi.json
	$(BIN)/python -c 'from arraylstm_serve.admin import published; print(published(), end="")' > docs/openapi-admin.json

constraints:
	rm -rf .venv-pins
	$(PYTHON) -m venv .venv-pins
	.venv-pins/bin/pip install --quiet torch==2.13.0 hatchling editables setuptools
	.venv-pins/bin/pip install --quiet '.[dev]'
	{ sed -n 1p constraints.txt; .venv-pins/bin/pip freeze --all --exclude arraylstm-serving --exclude pip | sed 's/+cpu$$//'; } > .venv-pins/new
	mv .venv-pins/new constraints.txt
	rm -rf .venv-pins

clean:
	rm -rf .venv .venv-oldest .reference dist demo

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(f"Python 3.11 to 3.13 is needed; $(PYTHON) is {v[0]}.{v[1]}. Name another: make PYTHON=python3.11" if not (3, 11) <= v < (3, 14) else 0)'
	$(PYTHON) -m venv .venv

dist/built: $(BIN)/python $(SOURCES) constraints.txt
	@rm -rf dist
	@echo "Building the wheel"
	@$(PIP) wheel --quiet --no-deps --wheel-dir dist .
	@touch $@

# The wheel is reinstalled whenever a source changes, its dependencies only if they are missing.
define install
@echo "Installing arraylstm-serving[$(1)] into .venv"
@$(PIP) install --quiet "$$(echo dist/*.whl)[$(1)]"
@$(PIP) install --quiet --force-reinstall --no-deps dist/*.whl
@touch $@
endef

.venv/demo: dist/built
	$(call install,export$(comma)serve)

.venv/dev: dist/built
	$(call install,dev)

# array-lstm, which the cells are compared with. It is never installed beside our package: on a file system that ignores case,
# its arrayLSTM and our arraylstm are the same folder. benchmarks/reference.py imports it from here.
.reference: | $(BIN)/python
	$(PIP) install --quiet --no-deps --target $@ array-lstm==0.0.1

comma := ,
