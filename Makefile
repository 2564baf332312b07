# `make run` and `make test` do everything on a fresh machine with Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SIDE_BY_SIDE ?= 2
STAMP := $(VENV)/.installed
FAST := $(addprefix tests/,record stats decision tasks study test_seeding.py test_project.py)  # no MLflow, no training

.PHONY: run check test docs clean

run: $(STAMP)  ## a small but real study, and its verdict
	PATH="$(CURDIR)/$(BIN):$$PATH" MLFLOW_DISABLE_TELEMETRY=true \
	$(BIN)/mlflow run . -e shootout -P seeds=6 -P profile=small --env-manager local
	@echo 'to type those commands as they stand: source $(BIN)/activate'

check: $(STAMP)  ## what takes two minutes at most, before each commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n $(SIDE_BY_SIDE) $(FAST) -m 'not slow'

test: $(STAMP)  ## all tests, those of the environments that `mlflow run` makes included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	FNOSTAB_TEST_ENVIRONMENTS=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -n $(SIDE_BY_SIDE) --no-loadscope-reorder

docs: $(STAMP)  ## the documentation, in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'open site/index.html in a browser'

$(STAMP): pyproject.toml constraints.txt deploy/pyenv
	@echo "making $(VENV): this takes a few minutes"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) is too old, Python 3.11 or later is needed: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[dev]' & \
	  pip=$$!; while kill -0 $$pip 2>/dev/null; do printf .; sleep 2; done; echo; wait $$pip
	@command -v pyenv >/dev/null || install -m 755 deploy/pyenv $(BIN)/pyenv  # else `mlflow run` makes no environment
	@touch $@

clean:  ## everything but the environment: records, journals, caches
	rm -rf site outputs mlflow.db mlruns mlartifacts .mypy_cache .ruff_cache .pytest_cache
