# make demo | test | check | fuzz | bench | bench-peers | simulate | escape-table | crash | power-cuts | leftovers | soak | soak-memory | test-systemd | test-llama-server | clean. Each installs what it lacks first; a second run has nothing to install.
# make install-systemd | install-systemd-user: the service, for the machine or for yourself; docs/systemd.md.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CLIS := build/clis/.ready
LLAMA := .venv/.llama

ROUNDS ?= 1000
RUNS ?= 10000000
CUTS ?= 200

.PHONY: demo test check fuzz bench bench-peers simulate escape-table crash power-cuts leftovers soak soak-memory test-systemd test-llama-server wheels install-systemd install-systemd-user clis clean

demo: $(READY)
	$(BIN)/python examples/demo/run.py

test: $(READY) $(CLIS) $(LLAMA)
	$(BIN)/pytest -m 'not systemd' tests/unit tests/integration tests/e2e tests/escape $(PYTEST_ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The parsers of what others send, RUNS executions in all; goes on where it was stopped. FUZZ_ARGS: --minimise, names of targets.
fuzz: $(READY)
	.ci/setup fuzz
	$(BIN)/python -m tests.fuzz --runs $(RUNS) $(FUZZ_ARGS)

bench: $(READY) $(LLAMA)
	.ci/setup bench
	set -e; for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench; done

# PEERS_ARGS: --quick, --peers ours,celery_redis, --works noops; see benchmarks/peers/__main__.py.
bench-peers: $(READY)
	.ci/setup peers
	$(BIN)/python -m benchmarks.peers $(PEERS_ARGS)

# The escape attempts in our sandbox and in others': the table of docs/security.md. ESCAPE_ARGS: see tests/escape/__main__.py.
escape-table: $(READY)
	.ci/setup escape
	$(BIN)/python -m tests.escape --table $(ESCAPE_ARGS)

# The scheduler's promises about time: the real core with simulated workers and time, in seconds. REAL=1: the first two scenarios and the
# daemon's processor time with sandboxed workers instead. SIMULATE_ARGS: --plot draws benchmarks/simulate/results/makespan.svg anew.
simulate: $(READY)
	$(BIN)/python -m benchmarks.simulate $(if $(REAL),--real) $(SIMULATE_ARGS)

soak-memory: $(READY)
	$(BIN)/python benchmarks/soak.py --minutes $(or $(MINUTES),30)

# New seeds of the simulation until one is bad, or until stopped.
soak: $(READY)
	$(BIN)/python -m tests.simulation --soak

# kill -9 of real daemons under load, and what is left of their work.
crash: $(READY)
	$(BIN)/python -m tests.support.crashes --rounds $(ROUNDS)

# Losses of power, on a file system that forgets what was not synced.
power-cuts: $(READY)
	POWER_CUT_ROUNDS=$(CUTS) $(BIN)/pytest -s tests/integration/daemon/test_power_cut.py $(PYTEST_ARGS)

# Sandboxes by the thousand, and what is left of them.
leftovers: $(READY)
	LEFTOVER_SPAWNS=$(or $(SPAWNS),10000) $(BIN)/pytest tests/integration/sandbox/test_leftovers.py $(PYTEST_ARGS)

test-systemd: $(READY)
	.ci/setup systemd
	$(BIN)/pytest -m systemd tests/systemd $(PYTEST_ARGS)

# The tracker with llama.cpp's own server. Not in `make test`: to build it takes ten minutes of processor time.
test-llama-server: $(READY) $(LLAMA)
	.ci/setup llama-server
	$(BIN)/pytest tests/llama_server $(PYTEST_ARGS)

wheels: $(READY)
	.ci/setup wheels

# Built by whoever calls, so that root only copies.
install-systemd: wheels
	$(if $(filter-out 0,$(shell id -u)),sudo )env PYTHON=$(PYTHON) systemd/install

install-systemd-user: wheels
	PYTHON=$(PYTHON) systemd/install --user

clis: $(CLIS)

$(READY): pyproject.toml constraints.txt .ci/setup
	PYTHON=$(PYTHON) .ci/setup python

$(LLAMA): $(READY) .ci/llama.cmake
	.ci/setup llama

$(CLIS): tests/e2e/clis/package.json tests/e2e/clis/package-lock.json .ci/setup
	.ci/setup clis

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
