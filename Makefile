# `make demo` and `make test` start from nothing but Python 3.11 and pip.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SPACE := $(subst ,, )
PLUGINS := $(sort $(dir $(wildcard plugins/*/pyproject.toml)))
# Tests wait for servers and timers as much as they compute: more of them at once than a small machine has cores.
WORKERS ?= 4
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS)
EXTRAS := postgres,embedded,mongodb,mongomock,pickle,http,structured,plot,testing,dev

export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help venv demo check test lint types pytest durations bench docs wheels clean

help:
	@echo "make demo      the main job on real text: docstrings, three models, a kill -9, a question (under 5 minutes)"
	@echo "make check     lint, types, architecture, unit tests and the contract on SQLite: what to run while at work"
	@echo "make test      lint, types, the architecture test and every other test"
	@echo "make durations every test, measured: which come first in the next run is read from tests/durations.json"
	@echo "make bench     the figures, each with its ceiling beside it"
	@echo "make docs      the documentation as a site, in site/"
	@echo "make wheels    wheels of pinnacle and of all plug-ins, in dist/"
	@echo "make clean     remove the virtual environment and caches"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(addsuffix pyproject.toml,$(PLUGINS))
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]' $(foreach plugin,$(PLUGINS),-e $(plugin:%/=%))
	touch $@

demo: $(STAMP)
	$(BIN)/pinnacle demo

test: lint types pytest

check: lint types
	$(PYTEST) --databases sqlite tests/test_architecture.py tests/unit tests/contract

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	MYPYPATH=$(subst $(SPACE),:,$(PLUGINS:%/=%)) $(BIN)/mypy pinnacle $(wildcard plugins/*/pinnacle*)

pytest: $(STAMP)
	$(PYTEST)

durations: $(STAMP)
	$(PYTEST) --measure-durations

bench: $(STAMP)
	$(BIN)/python -m benchmarks

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/zensical build --clean --strict

wheels: $(STAMP)
	rm -rf dist
	for source in . $(PLUGINS); do $(BIN)/python -m build --wheel --no-isolation --outdir dist $$source || exit 1; done

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .cache dist site
