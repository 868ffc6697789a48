# make run    a fresh checkout to executed notebooks in build/notebooks (needs only Python and a package registry)
# make test   every check that CI runs
# Paths with spaces in the checkout's own path are not supported by make.

PYTHON ?= python3
JOBS ?= 2
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
CELL_TIMEOUT ?= 300
export OMP_WAIT_POLICY ?= PASSIVE# idle threads of torch sleep instead of spinning; see clipgs_lib/__init__.py
unexport PYTHONDONTWRITEBYTECODE# tests start a hundred processes, which need not compile the library each

# A process per core, at most four, with one thread each; a file stays in one of them, for the sake of its fixtures.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses=4 --dist=loadfile --durations=25

.PHONY: help run test lint types contract pytest coverage fuzz nbval lab bench clean distclean
.DEFAULT_GOAL := help

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The stamps are newer than pyproject.toml exactly when the environment has what it names.
$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = ".".join(map(str, sys.version_info[:3])); sys.version_info >= (3, 11) or sys.exit(f"error: Python 3.11 or newer is needed, {sys.executable} is {v}; run make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@ $(VENV)/.run

run: $(VENV)/.run ## run the notebooks; ARGS="01_splats -p SEED 1 --force", JOBS=1
	$(BIN)/clipgs notebooks run --jobs $(JOBS) $(ARGS)

# The notebooks come early, since they are one process for longest: with -j2 everything else is done beside them.
test: lint contract types nbval pytest fuzz ## all checks: style, notebooks' form, types, notebooks' outputs, tests, damaged files

lint: $(VENV)/.dev ## style of code and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## static types
	$(BIN)/mypy
	$(BIN)/mypy .ci/check_notebooks.py

contract: $(VENV)/.dev ## form of the committed notebooks
	$(BIN)/python .ci/check_notebooks.py

pytest: $(VENV)/.dev ## tests
	$(PYTEST)

coverage: $(VENV)/.dev ## tests, and which lines they reach; a third slower
	$(PYTEST) --cov=clipgs_lib --cov-report=term

fuzz: $(VENV)/.dev ## read damaged files of every format for 15 s; .ci/fuzz --help says how to go on longer
	$(BIN)/python .ci/fuzz --minutes 0.25

nbval: $(VENV)/.dev ## run the committed notebooks and compare their checked outputs
	PLOTLY_RENDERER=plotly_mimetype $(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=$(CELL_TIMEOUT) -p no:cacheprovider notebooks

lab: $(VENV)/.run ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir=. notebooks

bench: $(VENV)/.dev ## run every benchmark and print its table
	@for file in tests/benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean: ## remove what runs and tests wrote
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## also remove the environment
	rm -rf $(VENV)
