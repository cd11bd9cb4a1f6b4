# Every target works alone on a fresh clone: it needs Python 3.11 or newer with its venv module.
# tools/environment.py makes the environments; this file only says what runs in them.

PYTHON ?= python3
# Passed on to the command of the target: make demo ARGS="--epochs 3", make test ARGS="-k conv"
ARGS ?=

VENV := .venv
BENCH := .venv-bench
PARALLEL := -n auto --dist worksteal
PREPARE := $(PYTHON) tools/environment.py prepare

.DEFAULT_GOAL := help
.PHONY: help demo test quick check format pythons bench clean
# One environment, one caller at a time.
.NOTPARALLEL:

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: ## train a small network on scikit-learn's digits
	@$(PREPARE) demo
	@$(VENV)/bin/chainrule train digits $(ARGS)

test: ## run all tests against the wheel built from this checkout
	@$(PREPARE) dev
	@$(VENV)/bin/python -m pytest $(PARALLEL) $(ARGS)

quick: ## run the tests that are not marked slow
	@$(PREPARE) dev
	@$(VENV)/bin/python -m pytest $(PARALLEL) -m "not slow" $(ARGS)

check: ## lint, check the format and check the types
	@$(PREPARE) dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

format: ## sort the imports and format the code
	@$(PREPARE) dev
	$(VENV)/bin/ruff check --select I --fix
	$(VENV)/bin/ruff format

pythons: ## run the quick tests on each supported Python found on this machine
	@$(PYTHON) tools/environment.py pythons -- $(ARGS)

bench: ## compare training steps with PyTorch and Keras; ARGS="--quick" for a first look
	@$(PREPARE) bench
	@$(BENCH)/bin/python -m benchmarks $(ARGS)

clean: ## remove the environments, builds and caches (not your run folders)
	rm -rf $(VENV) $(BENCH) .venv-3.* .venv*.lock build dist
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
