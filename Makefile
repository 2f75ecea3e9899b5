# One door: demo, check, test, test-stack, bench. Everything is set up by `setup`, which every target needs.
# Caches (tools, models, servers) live outside the checkout, so that a second run is quick.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
LIKENESS_CACHE ?= $(HOME)/.cache/likeness
export LIKENESS_CACHE
export UV_CACHE_DIR ?= $(LIKENESS_CACHE)/uv
export PATH := $(CURDIR)/.venv/bin:$(PATH)
UV_VERSION := 0.13.9
UV := $(LIKENESS_CACHE)/tools/uv-$(UV_VERSION)/bin/uv
VENV := .venv/.installed

.PHONY: setup proto lock models demo check test test-stack bench bench-stack panels fuzz advisories clean

setup: $(VENV)

$(UV):
	$(PYTHON) -m venv $(LIKENESS_CACHE)/tools/uv-$(UV_VERSION)
	$(LIKENESS_CACHE)/tools/uv-$(UV_VERSION)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV): requirements/dev.lock pyproject.toml | $(UV)
	test -x .venv/bin/python || $(UV) venv --quiet --python $(PYTHON) .venv
	$(UV) pip sync --quiet --python .venv/bin/python --require-hashes requirements/dev.lock
	$(UV) pip install --quiet --python .venv/bin/python --no-deps --editable .
	touch $(VENV)

models: setup
	likeness models fetch

proto: setup
	python scripts/generate_rpc.py

COMPILE = $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --python-version 3.11
lock: | $(UV)
	$(COMPILE) --extra cpu --extra kafka --extra milvus --extra minio --extra postgres --extra parquet --extra evaluate --group dev pyproject.toml -o requirements/dev.lock
	$(COMPILE) --extra cpu --extra kafka --extra milvus --extra minio --extra postgres --extra parquet pyproject.toml -o requirements/cpu.lock
	$(COMPILE) --extra gpu --extra kafka --extra milvus --extra minio --extra postgres --extra parquet pyproject.toml -o requirements/gpu.lock

demo: models
	likeness demo

check: setup
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	python scripts/generate_rpc.py --check

test: models
	python -m pytest -m "not stack and not long" --numprocesses 2 --dist loadfile

test-stack: models
	python -m pytest -m "stack or long"

bench: models
	python -m tests.bench

# The same platform on Kafka, Milvus, MinIO and PostgreSQL beside the embedded one.
bench-stack: models
	python -m tests.bench.stack

# What the dashboards show of a platform at work, as pictures for docs/operations/panels.md.
panels: models
	python scripts/draw_panels.py

# Ten minutes of fuzzing, two targets at once, over what strangers can send: pictures, events, exports, tokens. What is
# found is printed, and kept in LIKENESS_CACHE/fuzz.
fuzz: setup
	python -m tests.fuzz all --seconds 600 --at-once 2

# Known vulnerabilities of what the locks name; for release day, where advisories can be had. --strict: a package that
# nothing is known of, because the source of advisories does not answer for it, is a failure and not a pass.
AUDIT = $(UV) tool run pip-audit==2.10.1 --strict --require-hashes --disable-pip
advisories: | $(UV)
	for lock in cpu gpu dev; do $(AUDIT) -r requirements/$$lock.lock; done

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build
