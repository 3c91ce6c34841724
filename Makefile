# `make` lists the targets. Everything runs in .venv, which is created by the first target that needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
# How many processes share the tests out, by file: fixtures of a module train once, and its tests keep their order.
# pytest-xdist would put files of many tests first; tests/conftest.py puts those of long tests first.
JOBS ?= 2
# Bytecode is written even where the environment asks for none (containers do): else every process compiles all anew.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help quickstart recipes train-digits sample-digits train-classifier evaluate-digits test test-unit test-all check docs format clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Langevin needs Python 3.11 or later; say make PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(INSTALLED_DEV): $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(INSTALLED)

quickstart: train-digits sample-digits evaluate-digits  ## install, then train, sample and evaluate on handwritten digits (minutes on a CPU)

train-digits: $(INSTALLED)
	$(BIN)/python train.py experiment=digits name=quickstart

sample-digits: train-digits
	$(BIN)/python sample.py checkpoint=outputs/quickstart num_samples=500 batch_size=250 overwrite=true

train-classifier: $(INSTALLED)
	$(BIN)/python train.py experiment=digits_classifier name=digits_classifier

evaluate-digits: sample-digits train-classifier
	$(BIN)/python evaluate.py samples=outputs/quickstart/generated data=digits \
		features=classifier features.checkpoint=outputs/digits_classifier \
		metrics=[fid,precision_recall,memorisation,class_accuracy]

recipes: train-classifier  ## train the recipes in latents, of super-resolution and of text in full, and check that they are as good as their READMEs say
	$(BIN)/python train.py experiment=digits_autoencoder name=digits_autoencoder
	$(BIN)/python evaluate.py checkpoint=outputs/digits_autoencoder metrics=[psnr] num_samples=297 \
		out=outputs/digits_autoencoder/measured
	$(BIN)/python train.py experiment=digits_latent codec.run=outputs/digits_autoencoder name=digits_latent
	$(BIN)/python sample.py checkpoint=outputs/digits_latent num_samples=500 batch_size=250 overwrite=true
	$(BIN)/python evaluate.py samples=outputs/digits_latent/generated data=digits \
		features=classifier features.checkpoint=outputs/digits_classifier \
		metrics=[fid,precision_recall,memorisation,class_accuracy]
	$(BIN)/python -m experiments.latents.bounds outputs/digits_autoencoder/measured/metrics.json \
		outputs/digits_latent/generated/metrics.json
	$(BIN)/python train.py experiment=digits_upscale name=digits_upscale
	$(BIN)/python -m experiments.upscale.measure outputs/digits_upscale
	$(BIN)/python train.py experiment=digits_text name=digits_text
	$(BIN)/python evaluate.py checkpoint=outputs/digits_text data=digits features=classifier \
		features.checkpoint=outputs/digits_classifier metrics=[fid,precision_recall] num_samples=500 \
		prompt=experiments/text/prompts.txt out=outputs/digits_text/measured
	$(BIN)/python -m experiments.text.measure outputs/digits_text --metrics=outputs/digits_text/measured/metrics.json

test: $(INSTALLED_DEV)  ## install, then run the tests (without the slow ones)
	$(PYTEST) -m "not slow"

test-unit: $(INSTALLED_DEV)  ## run only the tests of single functions and classes (about a minute)
	$(PYTEST) -m "unit and not slow"

test-all: $(INSTALLED_DEV)  ## run all tests, including the slow ones
	$(PYTEST)

check: $(INSTALLED_DEV)  ## check lint, format, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED_DEV)  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(INSTALLED_DEV)  ## format the code and fix lint errors
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the virtual environment and caches; runs in outputs/ stay
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
