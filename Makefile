# Everything a person runs, one line each in `make help`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .venv-clients
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
RECIPE ?= mnist-cnn
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install install-dev install-clients serve test lint check proto train bench clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Create .venv and install the service with ONNX Runtime for CPUs
install-dev: $(VENV)/.installed-dev ## Install the training jobs and the development tools too

install-clients: $(CLIENTS)/.installed ## Create .venv-clients with the clients of other servers, which tests use

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Octet needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[cpu]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) $$(grep '^torch==' constraints.txt)
	$(PIP) --editable '.[cpu,training,dev,bench]'
	@touch $@ $(VENV)/.installed

$(CLIENTS)/.installed: tests/protocols/requirements.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

serve: install ## Serve the committed models on http://127.0.0.1:8000 (ARGS="--port 9000 …")
	@exec $(BIN)/python -m service $(ARGS)

test: install-dev install-clients ## Run the whole suite (with OCTET_DATA_DIR: the committed models over the real test sets too)
	$(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

lint: install-dev ## Check format, style, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

check: lint test ## Everything that must hold before a commit

proto: install-dev ## Generate the messages of gRPC anew after a change of service/rpc/open_inference.proto
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=tests service/rpc/open_inference.proto

train: install-dev ## Train and publish a model (RECIPE=mnist-cnn or spoken-digits-lstm, ARGS="--seed 1 …")
	$(BIN)/python -m training $(RECIPE) $(ARGS)

bench: install-dev ## Measure beside bare ONNX Runtime and other servers (an hour; ARGS=--quick takes a minute)
	$(BIN)/python -m bench $(ARGS)

clean: ## Remove the environment and all caches; models and runs stay
	rm -rf $(VENV) $(CLIENTS) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage *.egg-info
