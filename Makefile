# make demo: everything, on made-up exams.  make test: the test suite.  Both set the environment up first.
VENV ?= .venv
PYTHON ?= python3
export VENV PYTHON
RUN := PYTHONSAFEPATH=1 $(VENV)/bin

.PHONY: help demo test test-all lint wheel compiled aot aot-check bench bench-gpu bench-grounding bench-blocks clean
help:
	@echo "make demo      phantoms -> labels -> a trained model -> grounded report -> review pages, in demo/"
	@echo "make test      the test suite (minutes);  make test-all  with the long ones"
	@echo "make lint      ruff, mypy, import directions;  make wheel  build it and import every package from it"
	@echo "make compiled  a wheel for this machine whose report reader is compiled, in dist/compiled (needs a C compiler)"
	@echo "make bench     the quick figures of docs/results/ (an hour); each of these takes hours and goes on where it was:"
	@echo "make bench-grounding  all models on mirrored phantoms;  make bench-blocks  what every block costs, the cheapest trained"
	@echo "make aot       compiles the Triton kernels that docs/results/aot.csv lacks;  make aot-check  is it of today"
	@echo "make bench-gpu compares every kernel with float64 on an NVIDIA GPU, then times it and the shipped networks"
	@echo "make clean     removes the environment and what was made"
demo:
	@.ci/setup.sh
	@$(RUN)/petground demo --out demo
test:
	@.ci/setup.sh dev
	@OMP_NUM_THREADS=1 $(RUN)/pytest -n auto tests/models tests/kernels
	@OMP_NUM_THREADS=1 $(RUN)/pytest -n 2 --ignore=tests/models --ignore=tests/kernels  # no more: some measure time
test-all:
	@.ci/setup.sh dev
	@$(RUN)/pytest -m "slow or not slow"
lint:
	@.ci/setup.sh dev
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy
	@PYTHONPATH=.typing $(RUN)/lint-imports
wheel:
	@.ci/setup.sh dev
	@.ci/wheel.sh
compiled:
	@.ci/setup.sh dev
	@rm -rf build/lib build/bdist.*
	@PETGROUND_COMPILED=1 $(RUN)/python -m build --wheel --outdir dist/compiled .
aot:
	@.ci/setup.sh dev
	@$(RUN)/python -m petground.kernels.aot --proof docs/results/aot.csv
aot-check:
	@.ci/setup.sh dev
	@$(RUN)/python -m petground.kernels.aot --check docs/results/aot.csv --sample 12 --jobs 2
bench-gpu:
	@.ci/setup.sh dev
	@$(RUN)/python benchmarks/gpu.py
	@$(RUN)/python benchmarks/run.py full_size
bench:
	@.ci/setup.sh dev
	@$(RUN)/python benchmarks/run.py
bench-grounding:
	@.ci/setup.sh dev
	@$(RUN)/python benchmarks/run.py grounding
	@$(RUN)/python benchmarks/grounding_page.py
bench-blocks:
	@.ci/setup.sh dev
	@$(RUN)/python benchmarks/run.py blocks blocks_trained; code=$$?; $(RUN)/python benchmarks/block_catalogue.py; exit $$code
clean:
	rm -rf $(VENV) build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
