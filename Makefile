PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Exactly the files whose hashes are in requirements/, and the project itself without anything else from an index.
HASHED  := $(PIP) --require-hashes --no-deps
PROJECT := $(PIP) --no-deps --no-build-isolation
EXTRAS  := charts kubernetes docker dev browser bench

.PHONY: install demo test containers audit bench bench-long lint lowest constraints requirements clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt requirements/base.txt requirements/build.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(HASHED) --requirement requirements/build.txt --requirement requirements/base.txt
	$(PROJECT) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(HASHED) --requirement requirements/dev.txt
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

# docker-compose.yml and its variants on a Docker engine that is started for it, as root: fifteen minutes.
containers: $(VENV)/.installed-dev
	.ci/containers

# Looks every pinned version up at a vulnerability service; fails if one is known to be vulnerable, or nobody could be asked.
audit: $(VENV)/.installed-dev
	$(BIN)/python .ci/audit.py

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(HASHED) --requirement requirements/bench.txt
	touch $@

# Half an hour at most, on two cores; writes benchmarks/results/, the source of the figures in docs/benchmarks.md.
bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks

# The long forms of the search plans, the refinement and the kills, too, and no limit on time: about an hour.
bench-long: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks --long

# Writes the versions of a fresh environment with everything in it, and requirements/ with the hashes of all their files, for
# every platform; names, versions and hashes only, no address.
constraints:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[dev,browser,bench]' --requirement requirements/build.in
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt
	$(MAKE) requirements

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --constraint constraints.txt \
           --generate-hashes --no-header --no-annotate

requirements:
	$(COMPILE) requirements/build.in --output-file requirements/build.txt
	$(COMPILE) pyproject.toml --output-file requirements/base.txt
	for extra in $(EXTRAS); do \
	    $(COMPILE) pyproject.toml --extra $$extra --output-file requirements/$$extra.txt || exit 1; done

# The unit tests with the lowest version of everything that pyproject.toml names; old versions warn of what has changed since.
lowest: $(VENV)/.installed-dev
	$(BIN)/uv pip compile --quiet pyproject.toml --extra dev --resolution lowest-direct --no-header --output-file .lowest.txt
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .lowest
	$(BIN)/uv pip install --quiet --python .lowest/bin/python --requirement .lowest.txt
	$(BIN)/uv pip install --quiet --python .lowest/bin/python --no-deps --editable .
	.lowest/bin/python -m pytest -W ignore::DeprecationWarning mohe_assets_tests/unit

clean:
	rm -rf .lowest .lowest.txt $(VENV) .mypy_cache .ruff_cache .pytest_cache
