# The verbs of this project; CI runs the same ones. Each sets up what it needs, with Python 3.11 to 3.13 and pip alone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOWEST := .venvs/lowest
BROKERS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-kafka test-property test-rest lint docs check pythons lowest coverage
.PHONY: bench bench-kafka bench-peers torture-kafka kafka

help:  ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(READY)  ## count words, then kill a windowed job halfway, resume it, compare the answers
	$(BIN)/python tools/demo.py

test: test-rest test-property test-kafka  ## the whole suite on one Python, in three runs

# Parts of about the same length for `make check -j2`; what is named in no other is in `test-rest`.
KAFKA_TESTS := tests/contract tests/java tests/kafka
PROPERTY_TESTS := tests/property

test-kafka: $(READY)
	$(BIN)/pytest $(KAFKA_TESTS)

test-property: $(READY)
	$(BIN)/pytest $(PROPERTY_TESTS)

test-rest: $(READY)
	$(BIN)/pytest $(addprefix --ignore=,$(KAFKA_TESTS) $(PROPERTY_TESTS))

lint: $(READY)  ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: $(READY)  ## run the code of README, docs and docstrings
	$(BIN)/pytest tests/docs

# The definition of done. Everything of `docs` and the tidy test are in `test`. `make check -j2` uses two cores: the
# longest come first.
check: export HYPOTHESIS_PROFILE ?= ci
check: test-rest test-kafka test-property lowest pythons lint  ## all that must hold before a merge

# `test` has looked for counter-examples: here the same 50 each time are enough.
FEW_EXAMPLES = HYPOTHESIS_PROFILE=dev PYTEST_ADDOPTS="$(PYTEST_ADDOPTS) --hypothesis-seed=20261125"

pythons:  ## the unit tests on each supported Python that is present
	$(FEW_EXAMPLES) $(PYTHON) tools/pythons.py

lowest: $(LOWEST)/.ready  ## the unit and property tests with the lowest versions of all dependencies
	$(FEW_EXAMPLES) $(LOWEST)/bin/python -m pytest -p no:cacheprovider tests/unit tests/property

coverage: $(READY)  ## the branches that no test takes
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

bench: $(READY)  ## measure against other ways to compute the same
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/files.py

bench-kafka: $(READY)  ## the same on a real Kafka, and Kafka Streams, Flink SQL, Quix and Faust on the same topics
	$(BIN)/python benchmarks/kafka.py

bench-peers: $(READY)  ## those other systems alone
	$(BIN)/python benchmarks/kafka.py --peers

torture-kafka: export STREAMKIT_TORTURE ?= 1
torture-kafka: $(READY)  ## the fault suite against a real Kafka, for hours (STREAMKIT_TORTURE=0.1 for a tenth)
	$(BIN)/pytest --timeout=0 -rP --show-capture=stdout tests/kafka/test_fault_*.py

kafka: $(READY)  ## run a real Kafka on 127.0.0.1:9092 until Ctrl-C (BROKERS=3 for three)
	$(BIN)/python tests/support/kafka_cluster.py --brokers $(BROKERS)

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@

$(LOWEST)/.ready: pyproject.toml tools/lowest.py
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) tools/lowest.py >$(LOWEST)/pins.txt
	$(LOWEST)/bin/python -m pip install --quiet --requirement $(LOWEST)/pins.txt --editable .
	touch $@
