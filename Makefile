# make demo: everything, on made-up exams.  make test: the test suite.  Both set the environment up first.
VENV ?= .venv
PYTHON ?= python3
export VENV PYTHON
RUN := PYTHONSAFEPATH=1 $(VENV)/bin

.PHONY: help demo test test-all lint types wheel bench clean
help:
	@echo "make demo      phantoms -> labels -> a trained model -> grounded report -> review pages, in demo/"
	@echo "make test      the test suite (minutes);  make test-all  with the long ones"
	@echo "make lint      ruff, mypy, import directions;  make wheel  build it and import every package from it"
	@echo "make bench     figures of docs/results/;  make clean  removes the environment and what was made"
demo:
	@.ci/setup.sh
	@$(RUN)/petground demo --out demo
test:
	@.ci/setup.sh dev
	@$(RUN)/pytest
test-all:
	@.ci/setup.sh dev
	@$(RUN)/pytest -m "slow or not slow"
lint:
	@.ci/setup.sh dev
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports
wheel:
	@.ci/setup.sh dev
	@.ci/wheel.sh
bench:
	@.ci/setup.sh dev
	@$(RUN)/python benchmarks/run.py
clean:
	rm -rf $(VENV) build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
