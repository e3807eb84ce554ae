# Two commands for a newcomer: `make demo` and `make test`. Each sets up what it needs; a second call reuses it.
PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
LOWEST := .venv-lowest
CORES  := $(shell nproc 2>/dev/null || echo 2)
SUITE  := -m pytest -n $(CORES) --dist worksteal --durations 10
PYTEST := OMP_NUM_THREADS=1 $(PY) $(SUITE)

.PHONY: help setup demo report published test test-slow test-all test-versions lint lock clean
help:      ## list the targets
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort | expand -t 15

setup: $(READY) ## make the virtual environment (done by the other targets too)
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12")'
	@echo "setting up $(VENV) (about 2 minutes and 7 GB, mostly torch)"
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## boxes in, masks out, retention measured: offline, on CPU, at most 15 minutes
	$(PY) experiments/run.py

report: $(READY) ## one page of all that was measured: results/report/report.html
	$(PY) -m analysis.report

published: $(READY) ## render results/tables and results/figures from results/published
	$(PY) -m analysis.tables --store results/published --out results
	$(PY) -m analysis.figures --store results/published --out results --redistributable

test: $(READY) ## the suite to run before each commit (at most 10 minutes on two cores)
	$(PYTEST) -m "not slow"

test-slow: $(READY) ## kills, end to end, every experiment at smoke scale, real data
	$(PYTEST) -m slow

test-all: test test-slow ## everything (at most 70 minutes on two cores)

test-versions: $(READY) $(LOWEST)/.ready ## `make test` with the lowest versions allowed and with the locked ones, GPUs visible and hidden
	@set -x; export OMP_NUM_THREADS=1; for python in $(LOWEST)/bin/python $(PY); do \
		if $$python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
			$$python $(SUITE) -m "not slow" || exit 1; \
		fi; \
		CUDA_VISIBLE_DEVICES= $$python $(SUITE) -m "not slow" || exit 1; \
	done

$(LOWEST)/.ready: pyproject.toml
	@echo "setting up $(LOWEST) (about 2 minutes and 7 GB)"
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct -e '.[dev]'
	@touch $@

lint: $(READY) ## ruff (lint and format) and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

lock: ## rewrite requirements.txt from pyproject.toml (needs uv)
	uv pip compile --universal --generate-hashes --python-version 3.11 --extra dev pyproject.toml -o requirements.txt --quiet

clean: ## remove the virtual environments and the run store
	rm -rf $(VENV) $(LOWEST) results/runs
