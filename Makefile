# The two commands to know: `make up` and `make test`. `make help` lists all.
STACK ?= local
PYTHON ?= python3
STACKS = .venv/bin/python tools/stack.py
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev up down output report env lint test constraints clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## set up what is missing, inside this checkout
	@$(PYTHON) tools/setup.py

setup-dev:
	@$(PYTHON) tools/setup.py --dev

up: setup ## train, export, serve and verify [STACK=local]
	@$(STACKS) up $(STACK)

down: setup ## take it down (pulumi destroy) [STACK=local]
	@$(STACKS) down $(STACK)

output: ## print the Triton endpoint, that alone [STACK=local]
	@$(STACKS) output $(STACK)

report: ## name the HTML report of the last run [STACK=local]
	@$(STACKS) report $(STACK)

env: ## print what to eval for using `pulumi` by hand: eval "$$(make env)"
	@$(STACKS) env $(STACK)

lint: setup-dev ## ruff and mypy --strict
	@.venv/bin/ruff format --check . && .venv/bin/ruff check .
	@.venv/bin/mypy

test: lint ## all tests that need no cluster
	@.venv/bin/python -m pytest tests

constraints: setup-dev ## pin anew what the requirements bring along
	@.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
	  requirements.txt requirements-dev.txt --upgrade --output-file constraints.txt
	@sed -i '1i # What requirements.txt and requirements-dev.txt bring along, pinned. Made by: make constraints' constraints.txt

clean: ## remove what set-up made (not the storage, not the state)
	@rm -rf .venv .tools .cache .pulumi .mypy_cache .ruff_cache .pytest_cache .hypothesis
