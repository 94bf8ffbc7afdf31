# Every target makes its own .venv the first time; `make VENV=path` chooses another place for it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Files of tests run side by side in so many processes, the longest first (tests/conftest.py); `make test WORKERS=0` runs
# them one after the other. One more than the two cores of a small machine: tests of ranks and signals wait half the time.
WORKERS ?= 3
# Most slow tests start several ranks each: more of them at once than cores only get in each other's way.
RANK_WORKERS ?= $(if $(filter 0 1,$(WORKERS)),$(WORKERS),2)
PYTEST = $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
export PYTHONUNBUFFERED = 1
# Hundreds of processes import the package; each would compile it again.
unexport PYTHONDONTWRITEBYTECODE

# Threads of products wait for each other where cores are few, at the cost of the tests beside them.
test test-fast: export OPENBLAS_NUM_THREADS = 1

.PHONY: demo test test-fast lint docs format clean

demo: $(VENV)/.demo      ## the whole chain on a simulated planet, ends in runs/demo/report.html
	$(BIN)/weatherfm demo

test: $(VENV)/.dev       ## every test, fast ones first
	$(PYTEST) -m "not slow"
	$(PYTEST) -m slow -n $(RANK_WORKERS)

test-fast: $(VENV)/.dev  ## minutes shorter: leaves out the tests marked slow
	$(PYTEST) -m "not slow"

lint: $(VENV)/.dev       ## what pre-commit and CI run
	PATH="$(abspath $(BIN)):$$PATH" .ci/lint

docs: $(VENV)/.dev       ## the documentation as pages, in site/; needs no network, and a broken link ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(VENV)/.dev     ## apply what lint asks for
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --no-compile -e '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --no-compile -e '.[dev]'
	touch $@ $(VENV)/.demo

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

clean:                   ## forget the environment and the site; runs/ stays
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache build *.egg-info
