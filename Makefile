# Two commands set everything up: `make demo` and `make test`.
# PYTHON selects the interpreter the environment is made with (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEPENDENCIES := pyproject.toml constraints.txt

.PHONY: demo test lint docs build clean

demo: $(VENV)/.package
	$(BIN)/python benchmarks/demo.py --out demo

test: $(VENV)/.test
	OMP_NUM_THREADS=1 PYTHONWARNINGS=error::UserWarning:__main__ $(BIN)/python -m pytest --numprocesses 2 --nbmake tutorials
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile src tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev
	DOCS_OFFLINE=1 $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

build: $(VENV)/.dev
	$(BIN)/python -m build
	$(BIN)/twine check dist/*

clean:
	rm -rf $(VENV) demo build dist docs/_build docs/tutorials docs/api/generated

# torch comes first and by constraint: a later package would otherwise pull another build of it.
$(VENV)/.package: $(DEPENDENCIES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "alphastomics needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing alphastomics into $(VENV); this takes a few minutes the first time."
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/.test: $(VENV)/.package
	$(PIP) --editable '.[test]'
	touch $@

$(VENV)/.dev: $(VENV)/.package
	$(PIP) --editable '.[dev]'
	touch $@
