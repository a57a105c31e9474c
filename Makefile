# Two commands: `make corpus` makes the demo corpus, `make test` checks everything.
# Each makes its own environment in .venv first, anew whenever its pins change.

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

SPEC ?= jobs/specs/demo.yaml
OUT ?= ./corpora/demo
PYTEST_ARGS ?=
ARGS ?=

# Ray starts many processes, and each would compile the package anew where its bytecode is not kept.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help env corpus serve test lint bench clean

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

env: $(STAMP)  ## make the environment in .venv

$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    || { echo "medsynth needs Python 3.11 or newer; install it, or name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null \
	    || { echo "this Python has no venv module; install it (Debian, Ubuntu: apt install python3.11-venv)" >&2; exit 2; }
	@echo "making $(VENV): the first time takes some minutes"
	@"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	@# Pip would compile on one core, for most of its time. Some packages carry files that no Python 3 compiles.
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

corpus: $(STAMP)  ## make a corpus: SPEC=jobs/specs/demo.yaml OUT=./corpora/demo
	$(BIN)/python jobs/generate.py --spec "$(SPEC)" --out "$(OUT)"

serve: $(STAMP)  ## serve the models at http://127.0.0.1:8000, until Ctrl-C: ARGS=focus_weights=s3://bucket/w.safetensors
	env PYTHONPATH=$(CURDIR) RAY_ADDRESS=$${RAY_ADDRESS:-local} $$($(BIN)/python -m serve.environment) \
	    $(BIN)/serve run serve.app:app $(ARGS)

lint: $(STAMP)  ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint  ## lint, then all the tests
	$(BIN)/python -m pytest -m "not bench" -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

bench: $(STAMP)  ## run the benchmarks; figures go to bench-out/ as JSON
	@mkdir -p bench-out
	@set -e; for script in tests/benchmarks/bench_*.py; do \
	    echo "== $$script"; PYTHONPATH=. $(BIN)/python "$$script"; \
	done

clean:  ## remove the environment and the caches in this folder; corpora stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .numba_cache .import_linter_cache build *.egg-info
