# make run   set up a virtual environment and run the first example
# make test  the same, and run the tests
# make check everything CI checks: format, lint, types, tests
# make golden  rewrite the expected texts of the tests; look at the difference before committing

VENV ?= .venv
EXTRAS ?= test,lint
BIN := $(VENV)/bin
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready

.PHONY: run test lint check golden clean

run: $(RUN_READY)
	$(BIN)/graphexec run graphs/attention.yaml --device cpu

test: $(DEV_READY)
	$(BIN)/python -m pytest

lint: $(DEV_READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

golden: $(DEV_READY)
	$(BIN)/python -m pytest --update-golden

$(RUN_READY): pyproject.toml scripts/make_venv
	scripts/make_venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(DEV_READY): pyproject.toml scripts/make_venv
	scripts/make_venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@ $(RUN_READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
