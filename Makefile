# Two commands do all: `make demo` and `make test`. They need Python 3.11+ and make; everything else they install in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KILLS ?= 1000

.DEFAULT_GOAL := help
.PHONY: help demo test chaos lint types fix bench bench-quick clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Dagbok needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	@echo "Installing Dagbok into $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "Installing what the tests need (once) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(VENV)/installed ## Run examples/briefing.json: no API key, no network beyond the package index
	@mkdir -p demo-workspace
	@$(BIN)/dagbok run examples/briefing.json --database sqlite:///demo-workspace/demo.db --workspace .

# Three processes for two processors: a third of the time tests wait for disks, databases and other processes. Files in
# the order of their names: those with few and long tests would otherwise come last, and one process would wait for them.
test: $(VENV)/installed-dev lint types ## Lint, check the types, run all tests
	@$(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder

chaos: $(VENV)/installed-dev ## Kill 1,000 processes (KILLS=n) and run the fault tests at length, in about half an hour
	@DAGBOK_CHAOS=1 $(BIN)/pytest -q -n 2 --dist loadfile $(wildcard tests/faults) tests/chaos
	@PYTHONPATH=tests $(BIN)/python -m chaos.campaign --kills $(KILLS) --report docs/reliability.md

lint: $(VENV)/installed-dev
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/codespell

types: $(VENV)/installed-dev
	@$(BIN)/mypy

fix: $(VENV)/installed-dev ## Format, and fix what the linter can
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format --quiet

bench: $(VENV)/installed-dev ## Dagbok beside its peers and the limits, in about 25 minutes; writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks

bench-quick: $(VENV)/installed-dev ## Dagbok alone, in less than a minute; writes nothing
	@$(BIN)/python -m benchmarks quick

clean: ## Remove what the other goals made
	@rm -rf $(VENV) .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-workspace
