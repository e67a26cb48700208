# Every command prepares what it needs first: on a fresh machine `make demo` is the only one to type.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench up down clean lock

BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --all-extras --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-header --no-annotate $(if $(UPGRADE),--upgrade)

help: ## Show these commands
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: ## Prepare this machine: packages, .venv from the lock, the sandbox image (repeating costs a second)
	@deploy/setup

demo: setup ## Take one issue to a pull request on this machine; MODEL=live uses the real Claude
	@$(BIN)/millrace demo $(if $(filter live,$(MODEL)),--live)

test: setup ## Run all tests; ARGS="tests/unit -k words" picks some
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: setup ## Lint, format, types, architecture and the lock files, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m deploy.lock.check

bench: setup ## Measure; the benchmarks live in bench/
	@if [ -f bench/__main__.py ]; then $(BIN)/python -m bench; \
	else echo "make bench: there are no benchmarks yet; they will live in bench/"; fi

up: setup ## Run every service in this terminal until Ctrl-C; data stays in .millrace
	@$(BIN)/millrace up

down: ## Stop the containers of compose.yaml (what `make up` started ends with Ctrl-C)
	@if [ -f compose.yaml ]; then docker compose down; \
	else echo "make down: there is no compose.yaml; end 'make up' with Ctrl-C in its terminal"; fi

clean: ## Remove .venv, caches and build output; keeps .millrace and the sandbox image
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock: setup ## Write deploy/lock anew from pyproject.toml; UPGRADE=1 takes the newest versions
	$(COMPILE) --output-file deploy/lock/runtime.txt
	$(COMPILE) --group dev --output-file deploy/lock/dev.txt
	$(BIN)/python -m deploy.lock.check
