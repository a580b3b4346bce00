# `make` alone lists what there is. Everything is installed into .venv, from the locks and nothing else, and
# only when a lock or pyproject.toml has changed since. Only `make bench RAY=1` installs something else, into a virtual
# environment of its own inside .venv: where pyarrow is installed, pandas behaves differently.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo example test check quick ui lint docs lock bench

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
ifeq ($(origin PYTHON),undefined)
# A version manager may leave a python3.11 on the path that only says it is not the one in use: run each to see.
PYTHON := $(shell for python in python3.11 python3 python3.13 python3.12; do \
	$$python -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo $$python && exit; done; echo python3)
endif
UI_PORT ?= 3000
UV ?= uv

# For example: make test ARGS='-k hours -x', make lock ARGS=--upgrade
ARGS ?=

BIN := .venv/bin
VENV := .venv/.made
RUNTIME := .venv/.runtime-installed
DEVELOPMENT := .venv/.development-installed
EXTRAS := alerts api kubernetes mlflow
RAY_HOME := .venv/ray
RAY_INSTALLED := $(RAY_HOME)/.ray-installed
PIP_INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --compile
INSTALL_PACKAGE := $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
REPORT_INSTALLATION := { echo "make: installing from $$lock into .venv failed (see above); run make again to retry" >&2; exit 1; }

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(RUNTIME) ## score a sample hour from beginning to end, on SQLite unless MYSQL_SERVER is set
	@$(BIN)/batch-assets demo

example: $(RUNTIME) ## open the UI with three pipelines side by side, see examples/clinic
	@set -e; cd examples/clinic; \
	DAGSTER_HOME="$${DAGSTER_HOME:-$(CURDIR)/examples/clinic/.batch_assets}"; export DAGSTER_HOME; \
	BATCH_ASSETS_HOME="$${BATCH_ASSETS_HOME:-$$DAGSTER_HOME}"; export BATCH_ASSETS_HOME; \
	[ -d models ] || $(CURDIR)/$(BIN)/python prepare.py; \
	$(CURDIR)/$(BIN)/batch-assets init-db; \
	exec $(CURDIR)/$(BIN)/dagster dev -m clinic.definitions --host 127.0.0.1 --port $(UI_PORT)

# Two kinds are left to .ci/run: the tests of the benchmarks, since nobody is shipped a benchmark, and the second run, on
# a server, of what lies above the SQL. make test ARGS='-m "benchmark or repeated"' runs them.
test: $(DEVELOPMENT) ## run the tests, on SQLite and on a real server: a private one unless MYSQL_SERVER is set
	@$(BIN)/python -m pytest -m "not (benchmark or repeated)" $(ARGS)

# Both at once: mypy has work for one core only.
check: $(DEVELOPMENT) ## check what can be checked within a minute: style, types, imports, and the quick tests
	@$(MAKE) --no-print-directory --jobs=2 lint quick

# What takes long, runs Dagster or starts a server is left to `make test`.
quick: $(DEVELOPMENT)
	@$(BIN)/python -m pytest --quiet -m "not (server or dagster or daemon or benchmark or slow)" $(ARGS)

bench: $(DEVELOPMENT) $(if $(RAY),$(RAY_INSTALLED)) ## measure the speed beside other ways; RAY=1: beside Ray Data too
	@$(BIN)/python -m benchmarks.speed $(if $(RAY),--ray-python "$(CURDIR)/$(RAY_HOME)/bin/python") $(ARGS)

ui: $(RUNTIME) ## open Dagster's UI and daemon on http://127.0.0.1:3000 (UI_PORT=...)
	@set -e; \
	if [ -n "$$MYSQL_SERVER" ]; then \
		home="$${DAGSTER_HOME:-$(CURDIR)}"; \
	else \
		$(BIN)/batch-assets init-db; \
		home="$${DAGSTER_HOME:-$${BATCH_ASSETS_HOME:-$(CURDIR)/.batch_assets}}"; \
	fi; \
	mkdir -p "$$home"; \
	DAGSTER_HOME="$$(cd "$$home" && pwd)"; export DAGSTER_HOME; \
	exec $(BIN)/dagster dev --workspace workspace.yaml --host 127.0.0.1 --port $(UI_PORT)

lint: $(DEVELOPMENT) ## check style, formatting, types, and that imports go down only
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(DEVELOPMENT) ## build the documentation into site/; a broken link fails (ARGS=serve: show it while you write)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(or $(ARGS),build --strict)

# The build backend is locked with the rest, so that nothing outside the locks is ever installed.
# Ray is left out of what everybody installs: it is larger than all else together. The tests have it.
# Extras stay in the lock because the pip of Python 3.11 refuses "gql" where a package asks for "gql[requests]".
lock: ## write the locks anew from pyproject.toml, keeping versions that still fit (ARGS=--upgrade: the newest)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: python3 -m pip install uv, or UV=/path/to/uv" >&2; exit 1; }
	@set -e; \
	backend="$$($(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")')"; \
	compile="$(UV) pip compile --quiet --universal --python-version 3.11 --no-strip-extras --generate-hashes $(ARGS)"; \
	echo "$$backend" | $$compile --custom-compile-command "make lock" pyproject.toml - $(EXTRAS:%=--extra %) --output-file requirements.txt; \
	echo "$$backend" | $$compile --custom-compile-command "make lock" pyproject.toml - --all-extras --group dev \
		--constraints requirements.txt --output-file requirements-dev.txt

$(VENV):
	@$(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "make: Python 3.11 or later is needed, and $(PYTHON) is" \
			"$$($(PYTHON) --version 2>/dev/null || echo missing). Name another with PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv || { \
		echo "make: $(PYTHON) cannot make a virtual environment (on Debian: apt-get install python3-venv)" >&2; exit 1; }
	@touch $@

$(RUNTIME): requirements.txt pyproject.toml $(VENV)
	@echo "Installing into .venv (a minute or two the first time)"
	@lock=requirements.txt; { $(PIP_INSTALL) --require-hashes -r $$lock && $(INSTALL_PACKAGE); } || $(REPORT_INSTALLATION)
	@touch $@

# This lock holds all of the other one, at the same versions: one installation serves both.
$(DEVELOPMENT): requirements-dev.txt requirements.txt pyproject.toml $(VENV)
	@echo "Installing into .venv, with what the tests need (a minute or two the first time)"
	@lock=requirements-dev.txt; { $(PIP_INSTALL) --require-hashes -r $$lock && $(INSTALL_PACKAGE); } || $(REPORT_INSTALLATION)
	@touch $(RUNTIME) $@

# The packages of the lock, and Ray beside them as the group `bench` of pyproject.toml names it.
$(RAY_INSTALLED): requirements.txt pyproject.toml $(DEVELOPMENT)
	@echo "Installing Ray into $(RAY_HOME) (a minute or two)"
	@set -e; \
	ray="$$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["bench"])')"; \
	$(BIN)/python -m venv --clear $(RAY_HOME); \
	install="$(RAY_HOME)/bin/python -m pip install --quiet --quiet --disable-pip-version-check"; \
	$$install --require-hashes -r requirements.txt; \
	$$install $$ray
	@touch $@
