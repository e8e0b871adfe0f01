# Two commands do everything on a fresh machine with Python 3.11+, git and make:
#   make demo    make test
# Each builds .venv from requirements.lock first, if that is missing or out of date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
LOCKED := $(VENV)/.locked
INSTALLED := $(VENV)/.installed
DEMO_OUT ?= demo-output
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types imports unit docs wheel lock clean

help:  ## Show the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## Build .venv from requirements.lock and install the package into it

$(LOCKED): requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	@touch $@

$(INSTALLED): $(LOCKED) pyproject.toml
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## Run the whole pipeline on a small synthetic cohort (about five minutes on two cores)
	$(BIN)/kneeoa-mm demo --out $(DEMO_OUT) --overwrite

test: lint types imports unit  ## Everything that CI checks: ruff, mypy, import-linter, pytest with doctests

lint: setup  ## ruff: style, docstrings, formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## mypy: strict outside learning/
	$(BIN)/mypy

imports: setup  ## import-linter: the layers and the framework doors
	$(BIN)/lint-imports

unit: setup  ## pytest with doctests
	$(BIN)/pytest --numprocesses $(JOBS)

docs: setup  ## Build the documentation site into docs/_build/html; any warning is an error
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

wheel: setup  ## Build the wheel and the source distribution into dist/
	$(BIN)/python -m build --no-isolation

lock: setup  ## Resolve requirements.lock anew (universal, hashed, no index address)
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --generate-hashes --no-emit-index-url --python-version 3.11 --upgrade --quiet -o requirements.lock

clean:  ## Remove what the targets above made
	rm -rf $(VENV) $(DEMO_OUT) dist docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
