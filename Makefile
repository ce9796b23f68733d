# Every target sets itself up in .venv/ first. It needs python3 (3.11 or newer, with venv) and make, nothing else.
# All set-up output goes to standard error, so that a target's standard output is its own.

MAKEFLAGS += --silent --no-print-directory
SHELL := /bin/sh
.DEFAULT_GOAL := help

UV_VERSION := 0.13.9
EXTRAS := ray kafka neo4j redis s3 graph research models
PY := .venv/bin/python
STAMP := .venv/.ready
ARGS ?=
# Two processes share the tests (tests/together.py); ARGS="-n 0" runs them in one, for a debugger.
TOGETHER := -n 2 --no-loadscope-reorder

# uv keeps to the lock file, never fetches an interpreter of its own, and trusts what the system trusts; a
# certificate bundle that was configured for pip counts for uv too.
export UV_PYTHON_DOWNLOADS ?= never
export UV_SYSTEM_CERTS ?= 1
export UV_HTTP_TIMEOUT ?= 180
ifdef PIP_CERT
export SSL_CERT_FILE ?= $(PIP_CERT)
endif

CANDIDATES := $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14
SUITABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

.PHONY: help setup demo test test-unit lint types format bench bench-peers services-fetch services-pin docs-check mutants build clean

help: ## list the targets
	grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv/ with everything that is needed

$(STAMP): pyproject.toml uv.lock Makefile
	{ set -e; \
	if ! $(PY) -c '$(SUITABLE)' 2>/dev/null; then \
		base=; \
		for candidate in $(CANDIDATES); do \
			if $$candidate -c '$(SUITABLE)' 2>/dev/null; then base=$$candidate; break; fi; \
		done; \
		if [ -z "$$base" ]; then \
			echo "make: no python3 of version 3.11 or newer with the venv module; install one, or name one: make PYTHON=..."; \
			exit 1; \
		fi; \
		echo "setting up .venv with $$($$base --version)"; \
		$$base -m venv --clear .venv; \
	fi; \
	$(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); \
	VIRTUAL_ENV= .venv/bin/uv sync --frozen --no-progress $(addprefix --extra ,$(EXTRAS)); \
	touch $(STAMP); \
	} >&2

demo: $(STAMP) ## run the demo; ARGS="--yes --json" for one line of JSON
	.venv/bin/party demo $(ARGS)

services-fetch: $(STAMP) ## fetch and build Kafka, Neo4j, Redis and MinIO, once, into the user's cache
	.venv/bin/party services fetch >&2

services-pin: $(STAMP) ## after a change of version: write the SHA-256 of each jar anew
	$(PY) -m agent_party.cluster.services.lock

test: services-fetch ## run every test, once, with real servers
	$(PY) -m pytest $(TOGETHER) $(ARGS)

test-unit: $(STAMP) ## run the tests that need no service and no Ray
	$(PY) -m pytest tests/unit $(TOGETHER) $(ARGS)

lint: $(STAMP) ## ruff: rules and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(STAMP) ## mypy, strict
	$(PY) -m mypy

format: $(STAMP) ## let ruff format and fix what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(STAMP) ## run the benchmarks, side by side with raw parts
	$(PY) -m benchmarks $(ARGS)

bench-peers: $(STAMP) ## the same beside DBOS, LangGraph, Temporal and Restate; they go to .venv-peers/ and the user's cache
	{ VIRTUAL_ENV= UV_PROJECT_ENVIRONMENT=.venv-peers .venv/bin/uv sync --frozen --no-progress --inexact --python $(PY) --no-default-groups --group peers; \
	.venv/bin/uv pip install --no-progress --python .venv-peers/bin/python -r benchmarks/peers/requirements.txt; \
	$(PY) -m benchmarks.peers.servers; } >&2
	python=.venv-peers/bin/python; $$python -c 'import agent_party' 2>/dev/null || python=$(PY); \
	$$python -m benchmarks.peers $(ARGS)

docs-check: $(STAMP) ## execute the code of the README and the docs
	$(PY) -m pytest tests/docs $(ARGS)

mutants: $(STAMP) ## plant every bug of tests/mutants/book.py and see it caught; ARGS="name ..." for some
	$(PY) -m tests.mutants $(ARGS)

build: $(STAMP) ## build the wheel and the source distribution into dist/
	.venv/bin/uv build $(ARGS) >&2

clean: ## remove .venv, caches and build products; the party's data stays
	rm -rf .venv .venv-peers .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
