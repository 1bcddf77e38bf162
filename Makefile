# What castray's developers and first users type. Needs Python 3.10 to 3.13 and git, or uv.

VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(shell find castray_tui -name '*.py')
PYTEST_ARGS ?=
CHAOS_ARGS ?=

.PHONY: help demo test check format bench chaos venv clean

help:
	@echo "make demo     two small Ray clusters, castray over them, and all stopped again"
	@echo "make test     the whole check: lint, types, floors, tests"
	@echo "make check    lint, types and floors only"
	@echo "make format   put the code in order"
	@echo "make bench    what castray's figures are measured with"
	@echo "make chaos    random faults amid transfers (CHAOS_ARGS='--runs 20')"
	@echo "make venv     set up $(VENV) without running anything"
	@echo "make clean    remove everything that these made"

demo: $(VENV)/compiled
	@$(BIN)/castray demo

test: check
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/installed-dev $(VENV)/compiled
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/installed-dev $(VENV)/compiled
	@missed=""; for script in $(filter-out benchmarks/chaos_%,$(wildcard benchmarks/*.py)); do \
		echo "== $$script"; $(BIN)/python "$$script" || missed="$$missed $$script"; \
	done; [ -z "$$missed" ] || { echo "missed a goal:$$missed"; exit 1; }

chaos: $(VENV)/installed-dev $(VENV)/compiled
	$(BIN)/python benchmarks/chaos_transfers.py $(CHAOS_ARGS)

venv: $(VENV)/compiled

# Each step leaves a stamp, so that it runs again only when what it depends on has changed.
$(VENV)/installed: pyproject.toml .ci/setup-venv
	@.ci/setup-venv "$(VENV)"
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@.ci/setup-venv "$(VENV)" dev
	@touch $@

# Where PYTHONDONTWRITEBYTECODE is set, nothing but this keeps castray's start from compiling.
$(VENV)/compiled: $(VENV)/installed $(SOURCES)
	@$(BIN)/python -m compileall -q castray_tui
	@touch $@

clean:
	[ ! -e "$(VENV)/pyvenv.cfg" ] || rm -rf "$(VENV)"
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find $(wildcard castray_tui tests benchmarks) -name __pycache__ -type d -prune -exec rm -rf {} +
