# make demo | test | check | bench | test-systemd | clean. Each installs what it lacks first; a second run has nothing to install.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CLIS := build/clis/.ready

.PHONY: demo test check bench test-systemd clis clean

demo: $(READY)
	$(BIN)/python examples/demo/run.py

test: $(READY) $(CLIS)
	$(BIN)/pytest -m 'not systemd' tests/unit tests/integration tests/e2e $(PYTEST_ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	.ci/setup bench
	set -e; for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench; done

test-systemd: $(READY)
	.ci/setup systemd
	$(BIN)/pytest -m systemd tests $(PYTEST_ARGS)

clis: $(CLIS)

$(READY): pyproject.toml constraints.txt .ci/setup
	PYTHON=$(PYTHON) .ci/setup python

$(CLIS): tests/e2e/clis/package.json tests/e2e/clis/package-lock.json .ci/setup
	.ci/setup clis

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
