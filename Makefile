# Every target first sets up what it needs, and only once: a virtual environment in .venv with the versions
# that constraints.txt pins. `make PYTHON=/path/to/python3.12 test` chooses the interpreter.

PYTHON ?= python3
BIN := .venv/bin
# torch / Python, for `make versions`
VERSIONS ?= 2.11.0/python3.11 2.11.0/python3.12 2.13.0/python3.13 2.14.1/python3.11
# torch goes first and alone, so that no other package's requirement can pull a different build of it.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test gpu any-transform any-use versions lint format types docs bench freeze clean
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##/make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/.examples  ## sweep 256 optimizers on handwritten digits(a minute)
	$(BIN)/python examples/sweep_digits.py

test: .venv/.dev  ## the whole test suite, doctests and examples included
	$(BIN)/python -m pytest -n 2 --dist worksteal

any-use: .venv/.dev  ## 10,000 programs of what people do to a TorchOptimizer, and 1,000 compiled
	$(BIN)/python -m tests.interop.any_use --random --runs 10000
	$(BIN)/python -X faulthandler -m tests.interop.any_use --random --runs 1000 --compile

lint: .venv/.dev  ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: .venv/.dev  ## let ruff repair what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: .venv/.dev  ## pyright over the library and the examples
	$(BIN)/basedpyright

docs: .venv/.dev  ## the documentation, strict, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv/.bench  ## side by side with torch.optim, optax and others (an hour)
	$(BIN)/python -W ignore benchmarks/step.py
	$(BIN)/python benchmarks/recipe.py
	$(BIN)/python -W ignore benchmarks/shards.py
	$(BIN)/python benchmarks/compile.py
	$(BIN)/python -W ignore benchmarks/matrix.py
	$(BIN)/python benchmarks/parts.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/policies.py
	$(BIN)/python benchmarks/search.py

gpu:  ## on a machine with a GPU, with the Python that has torch and optree: what is right, and times (six minutes)
	PYTHONPATH=. $(PYTHON) -W ignore benchmarks/gpu.py --out gpu.json

any-transform: .venv/.dev  ## ten thousand programs as users write them, eager and fused (an hour)
	$(BIN)/python -W ignore -m tests.compiler.programs 10000 $${SEED:-0} .venv/program.py

versions:  ## the suite on other versions of torch and Python, each in an environment of its own (gigabytes)
	@for pair in $(VERSIONS); do tests/versions.sh $${pair%/*} $${pair#*/} || failed="$$failed $$pair"; done; \
	    test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

freeze: .venv/.dev .venv/.bench  ## write the versions installed now to constraints.txt
	sed -n '/^#/p' constraints.txt > .venv/constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' >> .venv/constraints.txt
	mv .venv/constraints.txt constraints.txt
	touch .venv/.torch .venv/.examples .venv/.dev .venv/.bench

clean:  ## remove the environment and everything made
	rm -rf .venv .versions site out build dist .pytest_cache .ruff_cache .hypothesis

.venv/.python:
	@command -v '$(PYTHON)' >/dev/null || { echo "optfx: no $(PYTHON) on PATH. Name one: make PYTHON=python3.12"; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "optfx needs Python 3.11 or newer; $(PYTHON) is $$('$(PYTHON)' --version). Name another: make PYTHON=python3.12"; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "optfx: $(PYTHON) cannot make a virtual environment, its ensurepip is missing (Debian: apt install python3-venv)"; exit 1; }
	'$(PYTHON)' -m venv .venv
	@touch $@

.venv/.torch: constraints.txt | .venv/.python
	$(INSTALL) torch
	@touch $@

.venv/.examples: pyproject.toml .venv/.torch
	$(INSTALL) -e '.[examples]'
	@touch $@

.venv/.dev: .venv/.examples
	$(INSTALL) -e '.[test,docs,dev]'
	@touch $@

.venv/.bench: .venv/.examples
	$(INSTALL) -e '.[bench]'
	@touch $@
