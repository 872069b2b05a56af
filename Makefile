# Everything a person runs, one line each in `make help`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .venv-clients
DEPLOY := .venv-deploy
CHECKOV := .venv-checkov
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
RECIPE ?= mnist-cnn
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install install-dev install-clients install-deploy serve test test-deploy lint check lock sbom manifests proto train bench clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Create .venv and install the service with ONNX Runtime for CPUs
install-dev: $(VENV)/.installed-dev ## Install the training jobs and the development tools too

install-clients: $(CLIENTS)/.installed ## Create .venv-clients with the clients of other servers, which tests use

install-deploy: $(DEPLOY)/.installed $(CHECKOV)/.installed ## Create .venv-deploy and .venv-checkov with what checks images and configurations

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Octet needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[cpu]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) $$(grep '^torch==' constraints.txt)
	$(PIP) --editable '.[cpu,tracing,training,dev,bench]'
	@touch $@ $(VENV)/.installed

$(CLIENTS)/.installed: tests/protocols/requirements.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(DEPLOY)/.installed: tests/deploy/requirements.txt
	$(PYTHON) -m venv $(DEPLOY)
	$(DEPLOY)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(CHECKOV)/.installed: tests/deploy/checkov-requirements.txt
	$(PYTHON) -m venv $(CHECKOV)
	$(CHECKOV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

serve: install ## Serve the committed models on http://127.0.0.1:8000 (ARGS="--port 9000 …")
	@exec $(BIN)/python -m service $(ARGS)

test: install-dev install-clients ## Run the whole suite, on all processors (ARGS=-n0: on one; with OCTET_DATA_DIR: the committed models over the real test sets too)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --cov --cov-report=term $(ARGS)

test-deploy: install-dev install-deploy ## Build the images, run the whole stack and break it (needs Docker with Compose)
	$(BIN)/python -m pytest -m deploy tests/deploy $(ARGS)

lint: install-dev ## Check format, style, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

check: lint test ## Everything that must hold before a commit

lock: install-deploy ## Write docker/locks/ anew: what the images install, with digests (after a change of the dependencies)
	@for flavour in cpu openvino cuda; do \
		$(DEPLOY)/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
			--constraint constraints.txt --extra $$flavour --extra tracing --custom-compile-command 'make lock' \
			--no-emit-package typer --no-emit-package rich --no-emit-package shellingham \
			--no-emit-package pygments --no-emit-package markdown-it-py --no-emit-package mdurl \
			--output-file docker/locks/$$flavour.txt pyproject.toml \
			$$(ls docker/locks/$$flavour.in 2>/dev/null) || exit 1; \
	done

sbom: install-deploy ## Write dist/sbom/: what each image of the service installs, as CycloneDX
	@mkdir -p dist/sbom
	@for flavour in cpu openvino cuda; do \
		$(DEPLOY)/bin/python -W ignore -m cyclonedx_py requirements docker/locks/$$flavour.txt --pyproject pyproject.toml \
			--output-reproducible --output-format JSON --output-file dist/sbom/$$flavour.cdx.json || exit 1; \
	done

manifests: install ## Write what k8s/ shares with the rest: the alert rules and the digests of the committed bundles
	$(BIN)/python k8s/generate.py

proto: install-dev ## Generate the messages of gRPC anew after a change of service/rpc/open_inference.proto
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=tests service/rpc/open_inference.proto

train: install-dev ## Train and publish a model (RECIPE=mnist-cnn or spoken-digits-lstm, ARGS="--seed 1 …")
	$(BIN)/python -m training $(RECIPE) $(ARGS)

bench: install-dev ## Measure beside bare ONNX Runtime and other servers (an hour; ARGS=--quick takes a minute)
	$(BIN)/python -m bench $(ARGS)

clean: ## Remove the environment and all caches; models and runs stay
	rm -rf $(VENV) $(CLIENTS) $(DEPLOY) $(CHECKOV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage *.egg-info
