# make run        set up a virtual environment and run the first example
# make test       the same, and run the tests
# make test-fast  those that need no compiler, browser, installation or emulator
# make check      everything CI checks: format, lint, types, tests
# make coverage   the tests, and which lines of graphexec/ and ops/ none of them reaches
# make golden     rewrite the expected texts of the tests; look at the difference before committing

VENV ?= .venv
EXTRAS ?= test,lint
BIN := $(VENV)/bin
# A file of tests stays in one process: what it builds is built once. TESTS=-n0 for all in one.
TESTS ?= -n auto --maxprocesses 8 --dist loadfile
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready

.PHONY: run test test-fast lint check coverage golden clean

run: $(RUN_READY)
	$(BIN)/graphexec run graphs/attention.yaml --device cpu

test: $(DEV_READY)
	$(BIN)/python -m pytest $(TESTS)

test-fast: $(DEV_READY)
	$(BIN)/python -m pytest $(TESTS) -m "not slow and not hip"

lint: $(DEV_READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python scripts/check_types

check: lint test

coverage: $(DEV_READY)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

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
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
