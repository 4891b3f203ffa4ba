# SPDX-License-Identifier: GPL-2.0-or-later
# What a contributor runs. `make` lists it. What needs root and bcc works in .venv, which deploy/setup.sh makes; the core's
# tests, types, style and docs need neither, and make .venv-core for themselves where there is no .venv.
SHELL = /bin/bash
.SHELLFLAGS = -euo pipefail -c
.DEFAULT_GOAL = help
.PHONY: help test test-core types style mentions hooks bench-quick docs coverage clean

core = .venv-core/bin/python
# Where all is set up, that; else what needs no root.
python = $(if $(wildcard .venv/bin/pytest),.venv/bin/python,$(core))
prepared = $(if $(wildcard .venv/bin/pytest),,$(core))
linters = $(if $(wildcard .venv/bin/mypy),,.venv-core/bin/mypy)
covering = tests/core tests/tools tests/daemon tests/system tests/datapath tests/netns $(wildcard tests/test_*.py)
# On two processors, one process is as fast as two that each import everything.
workers = $(shell [ "$$(nproc)" -ge 4 ] && $(python) -c 'import xdist' 2>/dev/null && printf -- '-n auto')

help: ## this list
	@sed -En 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 14

test: ## linters, types, all tests; needs root, and installs what is missing (18 minutes on two quiet processors)
	deploy/test.sh

test-core: $(prepared) ## the decisions' tests, or those of T; no root, no bcc, no machine; what takes seconds is left out
	@$(python) -m pytest -q $(workers) -m "not large" --hypothesis-profile=quick $(if $(filter tests/%,$(T)),,tests/core) $(T) || { \
	    status=$$?; \
	    [ $$status != 5 ] || echo "test-core: no test there is meant by T=\"$(subst ",,$(T))\", or all that are meant are marked large" >&2; \
	    exit $$status; }

types: $(linters) ## mypy --strict
	$(python) -m mypy

style: $(linters) ## what is to be mended of the style: ruff, clang-format, shellcheck where there is one
	$(python) -m ruff check
	$(python) -m ruff format --check --diff
	find bpf tests -name '*.[ch]' -exec $(dir $(python))clang-format --dry-run --Werror {} +
	if command -v shellcheck >/dev/null; then \
	    shellcheck --external-sources deploy/*.sh deploy/*/*.sh deploy/systemd/clean deploy/systemd/next .ci/run tests/kernels/init; fi

hooks: $(prepared) ## have git look at each commit by style, types and mentions (pre-commit)
	$(python) -m pip install --quiet --editable '.[dev]'
	$(python) -m pre_commit install

bench-quick: ## all rows of the benchmark with small numbers: does it work? Needs root (a minute)
	deploy/bench.sh --quick

mentions: $(prepared) ## whether each file, page, command and rule is there that a text names
	$(python) -m pytest -q tests/manual/test_documents.py tests/manual/test_mentions.py tests/manual/test_outcomes.py tests/manual/test_rules.py

docs: $(prepared) ## the tables of keys and metrics, written from the code; then mentions
	$(python) -m docs.keys
	$(python) -m docs.metrics >.metrics && mv .metrics docs/metrics.md
	$(MAKE) --no-print-directory mentions

coverage: ## which lines of npd6_xdp no test reaches, in daemons as well; needs root (an hour)
	test -e .venv/bin/coverage || { echo "coverage: run deploy/setup.sh --test first" >&2; exit 1; }
	.venv/bin/coverage erase
	.venv/bin/coverage run -m pytest -q $(or $(T),$(covering)) || echo "coverage: some tests failed; what they reached counts"
	.venv/bin/coverage combine --quiet
	.venv/bin/coverage report

clean: ## what this made
	rm -rf .venv-core htmlcov .coverage

$(core): pyproject.toml deploy/backend.py
	python3 -m venv .venv-core || { echo "install your distribution's package of venv (Debian: python3-venv)" >&2; exit 1; }
	$(core) -m pip install --quiet --editable '.[core]'
	touch $(core)

.venv-core/bin/mypy: $(core)
	$(core) -m pip install --quiet --editable '.[style]'
	touch $@
