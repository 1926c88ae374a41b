# Every verb sets itself up: `make demo` and `make test` work from a bare checkout with Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := schemas payload eventlog egress ingest router curator dispatcher store control runtime
STAMP := $(VENV)/.made-from-lock

.PHONY: setup native lock fmt lint types test test-all demo demo-cluster bench bench-dispatch bench-providers bench-cluster bench-match chaos sim fuzz docs image clean

setup: $(STAMP)

$(STAMP): locks/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Nightbell needs Python 3.11 or newer; name one with: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

native: setup  ## build the matcher's compiled engine into the environment (wants Rust; without it everything runs in pure Python)
	CARGO_TARGET_DIR=$${CARGO_TARGET_DIR:-$(CURDIR)/.cache/native} $(BIN)/python -m pip install --quiet --disable-pip-version-check ./native

lock:  ## write both lock files anew; they name no registry's host
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate pyproject.toml -o locks/runtime.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate pyproject.toml --group dev -c locks/runtime.txt -o locks/dev.txt

fmt: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

test: setup  ## unit, contract, flow and architecture tests on memory, SQLite, PostgreSQL and Kafka; whole systems and a short fault run beside the rest
	$(BIN)/python -m tests

test-all: setup  ## everything, the long fault runs included
	$(BIN)/python -m pytest

demo: setup
	$(BIN)/python -m examples.demo

demo-cluster: setup  ## the demo on a real Kafka and a real PostgreSQL, started from wheels
	$(BIN)/python -m examples.demo_cluster

bench: setup
	$(BIN)/python -m bench.run

bench-dispatch: setup  ## the dispatcher alone: deliveries against a bare client loop, lanes, a million parked retries, idling, a dead agent
	$(BIN)/python -m bench.dispatch

bench-providers: setup  ## verification and normalisation by scheme, as ratios to the bare hash; a mix of 15 providers
	$(BIN)/python -m bench.providers

bench-cluster: setup  ## the roles apart on a real Kafka and a real PostgreSQL, started from wheels
	$(BIN)/python -m bench.cluster

bench-match: setup  ## the matcher beside event-ruler and quamina; the compiled engine too, where `make native` has built it
	$(BIN)/python -m bench.match

chaos: setup  ## every fault run, those too that need strace, nft or mounts; at the end it says what did not run, and why
	NBTEST_CHAOS=1 $(BIN)/python -m pytest tests/chaos -m "slow or not slow" -s

sim: setup  ## 10^5 schedules of the whole pipeline in virtual time, then the builds that are broken on purpose; SEEDS=FIRST:BEHIND_LAST
	$(BIN)/python -m tests.simulation --seeds $${SEEDS:-0:100000}
	$(BIN)/python -m tests.simulation --seeds 0:200 --broken all

fuzz: setup  ## every scheme's parser for NBTEST_FUZZ_SECONDS (an hour); the matcher against event-ruler (NBTEST_EXAMPLES); contexts (NBTEST_EVENTS, a million)
	NBTEST_FUZZ_SECONDS=$${NBTEST_FUZZ_SECONDS:-3600} NBTEST_EXAMPLES=$${NBTEST_EXAMPLES:-10} $(BIN)/python -m tests.fuzz.schemes
	NBTEST_EXAMPLES=$${NBTEST_EXAMPLES:-20} $(BIN)/python -m pytest tests/router/test_matcher.py tests/router/test_explain.py tests/fuzz -m "slow or not slow" --timeout=0
	NBTEST_FUZZ_EXAMPLES=$${NBTEST_FUZZ_EXAMPLES:-5000} $(BIN)/python -m pytest tests/curator/test_compose.py -k breaks_its_budget --timeout=0
	$(BIN)/python -m tests.curator.fuzz $${NBTEST_EVENTS:-1000000}

docs: setup  ## write the generated documents anew
	$(BIN)/python -m docs.generate

image:
	docker build -t nightbell:$$($(PYTHON) -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])') .

clean:
	rm -rf $(VENV) .cache dist .mypy_cache .ruff_cache .pytest_cache
