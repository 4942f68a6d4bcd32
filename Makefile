# One command for each chore. `make demo` and `make test` work on a fresh clone and make the environment themselves.
#
#   make demo                                       fine-tune the tiny model, then compare before and after
#   make test                                       what continuous integration runs
#   make env PIP_FLAGS="--extra-index-url <URL>"    CUDA: <URL> is the wheel index that PyTorch's "Get started" page names
#                                                   for your CUDA version; where pip's torch is a CUDA build already (Linux,
#                                                   pip's default index), plain `make env` is enough
#   make env PYTHON=python3.12                      another interpreter, 3.11 or newer
#   make fuzz SEED=7 N=4000 AREAS="readers images"  damaged inputs; what goes wrong is kept in outputs/fuzz

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help env demo test lint types fix fuzz notebooks docs clean

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python,\
	$(shell $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $(name))))
PIP_FLAGS ?=
WORKERS ?= 2
SEED ?= 1
N ?= 3000
AREAS ?=
BIN := .venv/bin

help:
	@echo "make demo    fine-tune the tiny model on CPU and print the before/after table"
	@echo "make test    lint, types, import contract and all tests"
	@echo "make lint    ruff (rules and format) and the import contract"
	@echo "make types   mypy, strict on src"
	@echo "make fuzz    damaged and hostile inputs through all that reads them (SEED=, N=, AREAS=)"
	@echo "make notebooks  all notebooks, executed, in outputs/notebooks (some minutes; each again only when it changed)"
	@echo "make docs    the documentation as a site in outputs/site, every link checked"
	@echo "make fix     let ruff mend and format what it can"
	@echo "make env     .venv with the exact versions of constraints.txt (the targets above do it themselves)"
	@echo "make clean   remove .venv and caches; outputs/ stays"

env: .venv/installed

# The stamp is written last, so an installation that failed is taken up again.
.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 found. Install one, or name it: make env PYTHON=<path>" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_FLAGS) -e ".[test]"
	@touch $@

demo: env
	$(BIN)/python train.py recipes=background/lora_replay
	$(BIN)/python evaluate.py run=latest
	@echo "Before and after side by side in the browser:"
	@echo "    source .venv/bin/activate && vglm demo"

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: env
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: env
	$(BIN)/mypy

fix: env
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

fuzz: env
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seed $(SEED) --number $(N) --areas $(AREAS)

notebooks: $(patsubst notebooks/%.ipynb,outputs/notebooks/%.md,$(wildcard notebooks/*.ipynb))

# Each runs beside its copy, so that what it writes stays in outputs/.
outputs/notebooks/%.md: notebooks/%.ipynb | .venv/installed-docs
	@mkdir -p $(@D) && cp $< $(@D)/
	TQDM_DISABLE=1 OMP_NUM_THREADS=1 $(BIN)/jupyter nbconvert --log-level ERROR --execute --to markdown $(@D)/$*.ipynb

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "next: open outputs/site/index.html, or $(BIN)/mkdocs serve"

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_FLAGS) -e ".[test,docs]"
	@touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
