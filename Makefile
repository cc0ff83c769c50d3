# Each target first sets up what it needs: `make demo` and `make test` work in a fresh clone.
#
#   make demo DEMO="--workers 4 src"     other arguments of the demo
#   make test TESTS="tests/boards -x"    other arguments of pytest, in one run
#   make test JOBS=4                     all tests, on four processes instead of three; 0: on one
#   make test PYTHON=python3.12          with another interpreter, in an environment of its own
#   make test UV=                        with pip instead of uv
#   make bench SUITES=benchmarks/boards/bench_drain.py    one suite
#   make stress STRESS=3                 all tests three times, while the cores are busy

# Each PYTHON= gets an environment of its own, so that no interpreter runs in that of another.
ifneq ($(filter command environment,$(firstword $(origin PYTHON))),)
VENV := .venv-$(notdir $(PYTHON))
else
VENV := .venv
endif
BIN := $(VENV)/bin
DEMO ?=
TESTS ?=
# How many test processes run at a time; with 0 all tests run in one. Tests spend half of their time
# waiting for servers and processes, so three keep two cores busy.
JOBS ?= 3
# The suites that `make bench` runs, and extra arguments of pytest for each.
SUITES ?= $(sort $(wildcard benchmarks/*/bench_*.py))
BENCH ?=
# How often `make stress` runs all tests, and how many processes keep the cores busy meanwhile.
STRESS ?= 10
BURNERS ?= 2

# The packages for development, tests, docs and benchmarks, with hashes; `make lock` renews it.
LOCK := requirements-dev.txt

UV ?= $(shell command -v uv 2>/dev/null)

# The first interpreter that runs and is new enough. A python3.13 on the PATH may be a stub that
# runs nothing.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	"$$python" -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo "$$python"; break; }; done)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test stress coverage check lint format mypy pyright layers lock audit bench \
	bench-report bench-guard bench-peers reference docs clean

help:
	@echo 'make demo    dispatch a few thousand real files and watch'
	@echo 'make test    run all tests'
	@echo 'make stress  run all tests many times, while the cores are busy'
	@echo 'make coverage  run all tests, and report the branches that they miss'
	@echo 'make check   check lint, format, types and layers'
	@echo 'make bench   measure, each figure beside its baseline'
	@echo 'make bench-report  write what was measured as tables and plots into docs/_build/benchmarks'
	@echo 'make bench-guard  check quickly whether anything became slower than its baseline'
	@echo 'make bench-peers  measure drain, submit and latency beside other task systems'
	@echo 'make lock    renew the lock file of the development tools'
	@echo 'make audit   look for known vulnerabilities in the locked packages'
	@echo 'make reference  write the signatures in docs/reference from the code'
	@echo 'make docs    build the documentation into docs/_build/html'
	@echo 'make clean   remove everything that was built, and the environments'

# ---------------------------------------------------------------- the environment

# uv downloads an interpreter if there is none; pip needs an existing one.
$(VENV)/pyvenv.cfg:
ifneq ($(UV),)
	$(UV) venv --quiet --seed --clear --python '$(or $(PYTHON),3.13)' $(VENV)
else
	@test -n '$(PYTHON)' || { \
		echo 'rxdispatch needs Python 3.11 or newer, and none was found on the PATH.' >&2; \
		echo 'Install one, or name it: make PYTHON=/path/to/python3.12 ...' >&2; exit 1; }
	@'$(PYTHON)' -c '$(NEW_ENOUGH)' || { \
		echo 'rxdispatch needs Python 3.11 or newer; $(PYTHON) is older or does not run.' >&2; exit 1; }
	'$(PYTHON)' -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
endif

ifneq ($(UV),)
install = $(UV) pip install --quiet --python $(BIN)/python
else
install = $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

# The stamp files make the second run fast. The environment for development also has what the demo
# needs.
$(VENV)/.demo: $(VENV)/pyvenv.cfg setup.cfg pyproject.toml
	$(install) --editable '.[demo]'
	@touch $@

# The lock file includes setuptools, so the project is built without isolation.
$(VENV)/.dev: $(VENV)/pyvenv.cfg setup.cfg pyproject.toml $(LOCK)
	$(install) --require-hashes -r $(LOCK)
	$(install) --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.demo $@

# ---------------------------------------------------------------- what to run

demo: $(VENV)/.demo
	$(BIN)/rxdispatch demo $(DEMO)

# The tests of a file run in one process, because they may share a server. Tests that measure time
# run last and alone; pytest exits with 5 if there are none.
test: $(VENV)/.dev
ifneq ($(TESTS),)
	$(BIN)/python -m pytest $(TESTS)
else ifeq ($(JOBS),0)
	$(BIN)/python -m pytest -q
else
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m 'not serial'
	$(BIN)/python -m pytest -q -m serial || test $$? -eq 5
endif

# A race that shows in one of a hundred runs shows sooner while the cores are busy.
stress: $(VENV)/.dev
	$(BIN)/python -m tests.stress --rounds $(STRESS) --burners $(BURNERS) --jobs $(JOBS) -- $(TESTS)

coverage: $(VENV)/.dev
	$(BIN)/python -m pytest -q --cov

# Stops at the first failure; `make -k check` runs all of them.
check: lint format mypy pyright layers

lint: $(VENV)/.dev
	$(BIN)/ruff check .

format: $(VENV)/.dev
	$(BIN)/ruff format --check .

mypy: $(VENV)/.dev
	$(BIN)/mypy

pyright: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

layers: $(VENV)/.dev
	$(BIN)/lint-imports --no-logo

# One file for every Python from 3.11 on and every platform. With UPGRADE= only the versions change
# that must change.
UPGRADE ?= --upgrade
lock: $(VENV)/.dev
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --custom-compile-command 'make lock' $(UPGRADE) \
		--extra dev --extra bench setup.cfg --output-file $(LOCK)

audit: $(VENV)/.dev
	$(BIN)/uv tool run --quiet pip-audit --require-hashes --disable-pip -r $(LOCK)

# Each suite has a process of its own, so that it does not inherit the memory of another.
bench: $(VENV)/.dev
	@set -e; for suite in $(SUITES); do $(BIN)/python -m pytest -q "$$suite" $(BENCH); done
	$(BIN)/python -m benchmarks.figures.summary

# Compares ratios with the baseline; "python -m benchmarks.guard --store" stores a new baseline.
bench-guard: $(VENV)/.dev
	$(BIN)/python -m benchmarks.guard

bench-report: $(VENV)/.dev
	$(BIN)/python -m benchmarks.figures.report

# The peers have an environment of their own. arq has another inside it, because it needs redis < 6.
PEERS := .venv-peers
peers_install = -m pip install --quiet --disable-pip-version-check

$(PEERS)/.installed: benchmarks/peers/requirements.txt benchmarks/peers/requirements-arq.txt \
		$(VENV)/pyvenv.cfg setup.cfg
	rm -rf $(PEERS)
	$(BIN)/python -m venv $(PEERS)
	$(PEERS)/bin/python -m venv $(PEERS)/arq
	$(PEERS)/bin/python $(peers_install) --editable . -r $<
	$(PEERS)/arq/bin/python $(peers_install) -r benchmarks/peers/requirements-arq.txt
	@touch $@

bench-peers: $(PEERS)/.installed
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
		cd benchmarks/peers/node && npm install --silent --no-fund --no-audit \
			|| echo 'npm install failed, so BullMQ may be left out'; \
	else echo 'node or npm was not found, so BullMQ is left out'; fi
	$(PEERS)/bin/python -m benchmarks.peers $(BENCH)

# Writes the signatures in docs/reference from the code; a test compares them with it.
reference: $(VENV)/.dev
	$(BIN)/python -m tests.docs.signatures

docs: $(VENV)/.dev
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo 'docs/_build/html/index.html'

clean:
	rm -rf .venv .venv-* benchmarks/peers/node/node_modules .nox build dist *.egg-info \
		docs/_build benchmarks/results htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache
	find rxdispatch/ operators tests -name __pycache__ -type d -prune -exec rm -rf {} +
