# The two commands to know: `make up` and `make test`. `make help` lists all.
STACK ?= local
PYTHON ?= python3
STACKS = .venv/bin/python tools/stack.py
CLUSTER = .venv/bin/python tools/cluster.py
MINIKUBE_CPUS ?= 4
MINIKUBE_MEMORY ?= 8g
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-bench setup-play up down output report versions inspect logs play minikube env lint test test-cluster bench bench-check constraints diagrams clean

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

report: ## fetch and name the HTML report of the last run [STACK=local]
	@$(if $(filter local,$(STACK)),$(STACKS),$(CLUSTER)) report $(STACK)

versions: ## list the published versions of the model [STACK=local]
	@.venv/bin/python tools/versions.py versions $(STACK)

inspect: ## a shell in a pod that mounts the claim read-only [STACK=dev]
	@$(CLUSTER) inspect $(STACK)

logs: ## fetch the stages' logs out of the claim [STACK=dev]
	@$(CLUSTER) logs $(STACK)

setup-play:
	@$(PYTHON) tools/setup.py --play

play: setup-play ## open a page to draw digits on [STACK=local]
	@.venv/bin/python -m play $(STACK)

minikube: ## start minikube as stack dev needs it
	@command -v minikube >/dev/null || { echo "error: minikube is missing: https://minikube.sigs.k8s.io/docs/start" >&2; exit 1; }
	@minikube start --driver=docker --cpus=$(MINIKUBE_CPUS) --memory=$(MINIKUBE_MEMORY) --addons=registry

env: ## print what to eval for using `pulumi` by hand: eval "$$(make env)"
	@$(STACKS) env $(STACK)

lint: setup-dev ## ruff and mypy --strict
	@.venv/bin/ruff format --check . && .venv/bin/ruff check .
	@.venv/bin/mypy

# Two at a time, a file each: much of the time is waiting. Threads that wait must then not spin.
test: lint setup-play ## all tests that need no cluster
	@OMP_WAIT_POLICY=passive .venv/bin/python -m pytest tests --ignore tests/cluster --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-cluster: setup-dev ## the tests on a real cluster (KUBECONFIG, Docker, Pulumi's kubernetes and docker plugins)
	@.venv/bin/python -m pytest tests/cluster

setup-bench:
	@$(PYTHON) tools/setup.py --bench

bench: setup-bench ## measure, side by side with alternatives, and write docs/performance.md [PARTS="serving …"]
	@.venv/bin/python -m bench $(PARTS)

bench-check: setup-bench ## the short form; fails where a ratio is 20 % below the committed one
	@.venv/bin/python -m bench check

constraints: setup-dev ## lock anew what is installed: versions and hashes
	@.venv/bin/python tools/lock_packages.py

diagrams: setup-dev ## write the diagrams of docs/architecture from what is declared, and render them (mermaid-cli)
	@.venv/bin/python tools/diagrams.py

clean: ## remove what set-up made (not the storage, not the state)
	@rm -rf .venv .venv-bench .venv-play .tools .cache .pulumi .mypy_cache .ruff_cache .pytest_cache .hypothesis
