# Schleuse: the daily verbs. A bare `make` lists them; each one installs what it needs by itself (see .ci/setup).
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
PY := .venv/bin/python

.PHONY: help setup demo test check bench fuzz soak fix lock

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## install what is missing: Debian packages, .venv, the schleuse command (does nothing twice)
	@.ci/setup

demo: setup  ## one appliance, two people, real encrypted messages before your eyes (ONCE=1: stop afterwards)
	@$(PY) -m tests.world.demo $(if $(ONCE),--once)

test: check  ## make check, then every fast test
	@$(PY) -m pytest

check: setup  ## style (ruff), types (mypy --strict), the law of the four floors (import-linter)
	@$(PY) -m ruff check --quiet .
	@$(PY) -m mypy
	@report=$$(.venv/bin/lint-imports --no-cache --no-logo) || { echo "$$report"; exit 1; }

bench: setup  ## Schleuse and Synapse measured in turns, about ten minutes; writes tests/bench/RESULTS.md
	@$(PY) -m tests.bench.compare

fuzz: setup  ## 4,000 generated requests over the published API: no 5xx, no HTML, no hang
	@$(PY) -m tests.fuzz.api_fuzz

soak: setup  ## thirty power cuts under load, and 100,000 events past one reader
	@$(PY) -m pytest tests/crash -m slow -s

fix: setup  ## let ruff repair what it can
	@$(PY) -m ruff check --fix .

lock: setup  ## write the installed versions into constraints.txt after a deliberate upgrade
	@$(PY) .ci/lock
