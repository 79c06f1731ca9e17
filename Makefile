PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install demo test audit bench bench-long lint constraints clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	touch $@

demo: install
	@$(BIN)/mohe demo

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	.ci/packages
	$(BIN)/python -m pytest

# Looks every pinned version up at a vulnerability service; fails if one is known to be vulnerable, or nobody could be asked.
audit: $(VENV)/.installed-dev
	$(BIN)/python .ci/audit.py

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(PIP) --editable '.[dev,bench]'
	touch $@

# Half an hour at most, on two cores; writes benchmarks/results/, where README.md has its numbers from. See docs/benchmarks.md.
bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks

# The long forms of the search plans, the refinement and the kills, too, and no limit on time: about an hour.
bench-long: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks --long

# Writes the versions of a fresh environment with everything in it; names and versions only, no address.
constraints:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,browser,bench]'
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
