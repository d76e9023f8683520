# One place for every command; `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Options a user may set: make train DATA=train.jsonl.gz MINUTES=10 CONFIG=base
CONFIG  ?= nano
MINUTES ?= 3
DATA    ?=
LEXICON ?=
DEVICE  ?= host
FIT_OPTIONS = --config $(CONFIG) --minutes $(MINUTES) $(if $(DATA),--data $(DATA)) $(if $(LEXICON),--lexicon $(LEXICON))

.DEFAULT_GOAL := help
.PHONY: help setup run train export bench test test-fast lint clean

help:  ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(BIN)/.complete  ## Create .venv with the tested set of packages

$(BIN)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt 'torch==2.13.0'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

run: train export bench  ## Train, export with quantization, bench: the whole chain

train: setup  ## Train a small model (DATA=, MINUTES=, CONFIG=, LEXICON=)
	$(BIN)/swipe-train fit $(FIT_OPTIONS)

export: setup  ## Export the newest checkpoint to every format
	$(BIN)/swipe-export all --quantize

bench: setup  ## Measure the bundle here, or DEVICE=android: on a phone
	$(BIN)/swipe-bench --device $(DEVICE)

test: setup lint  ## Lint, then all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: setup  ## Tests under two minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow'

lint: setup  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:  ## Remove caches and what the commands wrote, never .venv or models
	rm -rf runs bundle bench build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
