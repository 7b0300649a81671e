# Everything a newcomer needs: `make chat` opens the chat, `make test` runs the tests. Both set up on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: chat test lint soak coverage clean

$(VENV)/.chat: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("forkpoint needs Python 3.11 or newer; set PYTHON=python3.12, say" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.chat
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

chat: $(VENV)/.chat
	$(BIN)/forkpoint

test: $(VENV)/.dev
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Branches of snapshots/ that no test takes, each argued in tests/COVERAGE.md.
STORE_TESTS := tests/unit/test_store*.py tests/unit/test_exchange.py tests/properties/test_store*.py
STORE_FAULTS := $(addprefix tests/faults/test_,damaged_files.py purge.py surroundings.py \
	database_bits.py write_order.py power_cut_model.py hostile_names.py)

coverage: $(VENV)/.dev
	rm -rf build/coverage
	mkdir -p build/coverage
	$(BIN)/coverage run -m pytest $(STORE_TESTS) $(STORE_FAULTS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage json -q -o build/coverage/report.json
	$(BIN)/coverage report
	$(BIN)/python tests/uncovered.py build/coverage/report.json

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -m soak

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .test-cache
