# Muster, from nothing: every target makes what it needs first. `make help` lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# The stamp holds what is installed: a second run compares two files and goes on.
STAMP := $(VENV)/.installed
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	command -v $$python >/dev/null && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$python; break; }; done)

.PHONY: up down test lint types bench interleave faults chaos soak mutants lock audit clean help

up: $(STAMP) ## a whole cluster on this machine, with a demo; Ctrl-C ends it (ARGS="--port 8001")
	@exec $(BIN)/python manage.py up $(ARGS)

down: $(STAMP) ## stop that cluster, from another terminal or after Ctrl-C, with its tasks
	@$(BIN)/python manage.py down

test: $(STAMP) ## everything that must hold, browser tests included where a Chromium is installed
	$(BIN)/lint-imports --no-logo
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@# Processes mostly wait: what computes goes beside them, and lets them go first.
	{ nice $(BIN)/pytest -n auto --dist worksteal -m "not processes and not browser" $(ARGS); others=$$?; \
	  $(BIN)/pytest -m browser $(ARGS); exit $$((others | $$?)); } >.tests.log 2>&1 & others=$$!; \
	$(BIN)/pytest -m "processes and not browser" $(ARGS); processes=$$?; \
	wait $$others; others=$$?; cat .tests.log; exit $$((processes | others))

lint: $(STAMP) ## the quick half of the tests: imports, style, types
	$(BIN)/lint-imports --no-logo
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP) ## the benchmark table, into benchmarks/results/ (ARGS="…")
	$(BIN)/python -m benchmarks $(ARGS)

interleave: $(STAMP) ## every pair of verbs, one held before each of its statements (VERBS=stop,plan limits it)
	INTERLEAVE=all $(BIN)/pytest -q -n 2 tests/interleave $(ARGS)

faults: $(STAMP) ## the agent, hit at each call by which it writes (needs strace; ARGS="--jobs 4 --minutes 50")
	@mkdir -p var
	set -o pipefail; $(BIN)/python -m tests.agent.faults $(ARGS) 2>&1 | tee var/faults.log

chaos: $(STAMP) ## kill random processes for five minutes (ARGS="--minutes 30 --seed 7")
	$(BIN)/python -m tests.chaos.long --minutes 5 $(ARGS)

soak: $(STAMP) ## the same for eight hours, seldom, with an eye on the memory (ARGS="…")
	$(BIN)/python -m tests.chaos.long --minutes 480 --most 1 $(ARGS)

mutants: $(STAMP) ## plant small bugs, list those that no test notices (ARGS="agent --minutes 20")
	$(BIN)/python -m tests.mutants $(ARGS)

lock: $(STAMP) ## resolve the requirements anew, with hashes and no registry addresses
	$(BIN)/python -m pip install --quiet uv
	for set in requirements requirements-dev; do \
		$(BIN)/uv pip compile --upgrade --generate-hashes --universal --python-version 3.11 \
			--no-emit-index-url --no-emit-find-links --no-header --quiet \
			$$set.in -o $$set.lock || exit 1; \
	done

audit: $(STAMP) ## look up what is known against the locked requirements (asks PyPI)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --disable-pip --no-deps -r requirements.lock -r requirements-dev.lock

clean: ## remove the virtual environment, the caches and everything in var/ (jobs included)
	@[ ! -d var ] || [ ! -e $(STAMP) ] || $(BIN)/python manage.py down
	rm -rf $(VENV) var .tests.log .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## these lines
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

$(STAMP): requirements.lock requirements-dev.lock
	@[ -n "$(PYTHON)" ] || { echo "Muster needs Python 3.11 or newer, and found none: install python3, or say make PYTHON=/path/to/python3." >&2; exit 1; }
	@[ -x $(BIN)/python ] && [ -x $(BIN)/pip ] || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); } || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment: install its venv package (Debian: python3-venv)." >&2; exit 1; }
	@echo "Installing what Muster runs on into $(VENV) (once; a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@printf '#!%s\nimport sys\nsys.path.insert(0, "%s")\nfrom orchestrator.cli.main import main\nsys.exit(main())\n' \
		"$(CURDIR)/$(BIN)/python" "$(CURDIR)" > $(BIN)/muster && chmod +x $(BIN)/muster
	@touch $(STAMP)
