# Everything a developer or an operator of one machine does, as short commands. Try `make help`.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8888
DATA ?= data
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup run test test-docker check lint bench demo docs lock fmt clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What the server needs, from the hash-pinned lock.
.venv/.run: requirements/run.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# What tests and checks need on top.
.venv/.dev: .venv/.run requirements/dev.txt sdk/pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e sdk
	@touch $@

setup: .venv/.dev ## Build .venv with the server and the developer's tools

run: .venv/.run ## Serve on http://127.0.0.1:8888 with the data in ./data (HOST=, PORT=, DATA=)
	$(BIN)/meterline serve --host $(HOST) --port $(PORT) --data-dir $(DATA)

# Two processes share the tests by files: most of them wait for servers now and then. The faults,
# which wait most, are all in one of them (tests/conftest.py).
test: .venv/.dev ## Run all tests
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder

test-docker: .venv/.dev ## Run all tests against ClickHouse, Kafka and PostgreSQL in containers (needs Docker)
	$(BIN)/python -m tests.containers

check: lint test ## Format, lint, types, import contracts, tests

lint: .venv/.dev ## Format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python sdk/unasync.py --check

bench: .venv/.dev ## Measure this machine, and print tables
	$(BIN)/python -m bench.ingest
	$(BIN)/python -m bench.endtoend
	$(BIN)/python -m bench.queries
	$(BIN)/python -m bench.checks
	$(BIN)/python -m bench.balance
	$(BIN)/python -m bench.holds
	$(BIN)/python -m bench.limits
	$(BIN)/python -m bench.tracked
	$(BIN)/python -m bench.kafka
	$(BIN)/python -m bench.sink
	$(BIN)/python -m bench.checks --database postgresql

demo: .venv/.run ## Start a server on example data in a temporary folder and show answers
	$(BIN)/meterline demo

fmt: .venv/.dev ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python sdk/unasync.py

docs: .venv/.dev ## Write the configuration reference anew
	$(BIN)/python -m meterline.server.settings_docs

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links

lock: .venv/.dev ## Write the lock files anew (UPGRADE=--upgrade for newer versions)
	$(LOCK) $(UPGRADE) pyproject.toml --group build -o requirements/run.txt
	$(LOCK) $(UPGRADE) pyproject.toml --extra telemetry --group build --group dev \
		-c requirements/run.txt -o requirements/dev.txt

clean: ## Remove the environment and caches (never the data)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
