PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install demo test bench lint docker-compose constraints clean

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

test: lint docker-compose
	$(BIN)/python -m pytest

# Reads docker-compose.yml for the tests, without a Docker engine. Where it can be neither found nor installed, they are skipped.
docker-compose:
	@if command -v docker-compose > /dev/null || docker compose version > /dev/null 2>&1; then :; \
	elif [ "$$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends docker-compose > /dev/null; \
	else echo "docker-compose is not installed: the tests of docker-compose.yml will be skipped."; fi

# Takes about twenty-five minutes; writes benchmarks/results/*.json, where README.md has its numbers from.
bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/rate.py
	$(BIN)/python benchmarks/recovery.py
	$(BIN)/python benchmarks/search_plan.py
	$(BIN)/python benchmarks/depth.py
	$(BIN)/python benchmarks/sensor.py
	$(BIN)/python benchmarks/scale.py

# Writes the versions of a fresh environment with everything in it; names and versions only, no address.
constraints:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,browser]'
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
