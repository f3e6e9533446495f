# Two commands that need nothing before them: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests that kill processes leave pipes to the dead; those warnings are shown, not raised.
KILLED := -W default::ResourceWarning -W default::pytest.PytestUnraisableExceptionWarning

# Left out, all; a folder or a file otherwise.
TESTS ?=

# Triton for machines without a GPU; a torch for CUDA brings its own.
TRITON := triton==3.9.0

.PHONY: install quickstart test test-short-faults test-kernels test-full lint clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

quickstart: install
	$(BIN)/python -m experiments.quickstart

test: install
	$(BIN)/python -m pytest -n 2 $(TESTS)

test-short-faults: install
	$(BIN)/python -m pytest -n 2 $(KILLED) -m "(browser or faults) and not slow and not gpu"

# The GPU's kernels, without one: interpreted against the plain forms, then compiled for an H100.
test-kernels: install $(VENV)/triton
	TRITON_INTERPRET=1 TRITON_DEFAULT_FP_FUSION=1 PYTHONPATH=$(VENV)/triton $(BIN)/python -m pytest -n 2 -W default tests/runners/test_kernels.py
	TRITON_DEFAULT_FP_FUSION=1 PYTHONPATH=$(VENV)/triton $(BIN)/python -m pytest -W default tests/runners/test_kernel_forms.py tests/runners/test_fused.py

$(VENV)/triton: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $@ $(TRITON)

test-full: install lint test-kernels
	$(BIN)/python -m pytest -n 2 $(KILLED) -m "not gpu"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .import_linter_cache *.egg-info build dist
