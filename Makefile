# Two commands that need nothing before them: `make quickstart` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# Tests that kill processes leave pipes to the dead; those warnings are shown, not raised.
KILLED := -W default::ResourceWarning -W default::pytest.PytestUnraisableExceptionWarning

.PHONY: install quickstart test test-short-faults test-full lint clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

quickstart: install
	$(BIN)/python -m experiments.quickstart

test: install
	$(BIN)/python -m pytest -n 2

test-short-faults: install
	$(BIN)/python -m pytest -n 2 $(KILLED) -m "(browser or faults) and not slow and not gpu"

test-full: install lint
	$(BIN)/python -m pytest -n 2 $(KILLED) -m "not gpu"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv .mypy_cache .ruff_cache .import_linter_cache *.egg-info build dist
