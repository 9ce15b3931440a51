# `make help` explains each target.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# The newest that the Go of Debian 12 builds:
KUSTOMIZE := v5.0.1
HELM := v3.13.3
VERSITYGW := v1.8.0
# Versitygw needs a newer Go. A Go is a module too, which an older one fetches and checks; Go 1.21 and newer do so themselves.
NEWER_GO := golang.org/toolchain@v0.0.1-go1.25.5.linux-$(if $(filter aarch64 arm64,$(shell uname -m)),arm64,amd64)
TORCH ?= $(shell cat $(VENV)/.torch 2>/dev/null)
ifneq ($(filter-out cpu,$(TORCH)),)
$(error TORCH is cpu or empty, not $(TORCH))
endif
PIP := $(BIN)/python -m pip install --disable-pip-version-check
# The CPU build lies in an index of its own, which uv knows. Its files are not in requirements.lock, so the
# lock gives only their versions.
ifeq ($(TORCH),cpu)
INSTALL_LOCKED = $(MAKE) --no-print-directory $(VENV)/requirements-cpu.txt $(VENV)/requirements-torch.txt \
	&& $(PIP) --no-deps --require-hashes -r $(VENV)/requirements-cpu.txt \
	&& $(BIN)/python -m uv pip install --python $(BIN)/python --no-deps --torch-backend=cpu -r $(VENV)/requirements-torch.txt \
	|| { echo "PyTorch's CPU build could not be installed. It lies in PyTorch's own index; make install TORCH= takes the build with CUDA from where pip looks." >&2; exit 1; }
else
INSTALL_LOCKED = $(PIP) --require-hashes -r requirements.lock
endif

.DEFAULT_GOAL := help
.PHONY: help install .same-torch demo test test-all fleet-long fuzz-api slow-long store-long producer-rust opensearch-cluster lint format figures crash-long lock sbom audit system-deps kustomize helm versitygw image-test image-test-deps clean

help: ## explain every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-18s %s\n", $$1, $$2}'

$(VENV)/.installed: requirements.lock pyproject.toml | .same-torch
	@$(PYTHON) -c 'import sys; sys.exit("cliptide needs Python 3.10 or newer, for example: make install PYTHON=python3.12" if sys.version_info < (3, 10) else 0)'
	@echo "installing into $(VENV), once: $(if $(TORCH),a download of about 0.5 GB with the CPU build of PyTorch,a download of about 3 GB, most of it PyTorch with CUDA (6 GB on disk))"
	@$(if $(TORCH),:,echo "(make install TORCH=cpu takes the smaller build without CUDA)")
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL_LOCKED)
	@$(PIP) --no-deps --no-build-isolation --editable .
	@echo "$(TORCH)" > $(VENV)/.torch
	@touch $@

# Both builds have the same version, so pip and uv would leave the one that is there.
.same-torch:
	@test ! -e $(VENV)/.installed || test "$(TORCH)" = "$$(cat $(VENV)/.torch 2>/dev/null)" \
		|| { echo "$(VENV) holds the other build of PyTorch ($(if $(TORCH),with CUDA,for the CPU)). Run make clean first, or leave TORCH out." >&2; exit 1; }

$(VENV)/requirements-cpu.txt: requirements.lock # all but PyTorch and CUDA
	@mkdir -p $(@D)
	@awk '/^[a-z]/ { skip = /^(torch|torchvision|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)==/ } !skip' $< > $@

$(VENV)/requirements-torch.txt: requirements.lock # the versions of PyTorch alone
	@mkdir -p $(@D)
	@sed -nE 's/^((torch|torchvision)==.*[^ ]) *\\$$/\1/p' $< > $@

install: $(VENV)/.installed ## create .venv and install everything, pinned by requirements.lock (TORCH=cpu: no CUDA)

demo: install ## run the whole pipeline on this machine and stay up until Ctrl-C (ARGS=--once ends by itself)
	@$(BIN)/python -m cliptide.demo $(ARGS)

test: install ## run the tests that this machine can run, and name each suite that was skipped
	@$(BIN)/python -m pytest -q $(ARGS)

test-all: install ## run every test, in two processes; count a skipped suite as a failure
	@CLIPTIDE_TEST_NO_SKIP=1 $(BIN)/python -m $(if $(ARGS),pytest -q $(ARGS),tools.test_side_by_side)

fleet-long: install ## force 400 rebalances on a fleet under load (about ten minutes; needs Apache Kafka)
	@TESTS_FLEET_REBALANCES=400 TESTS_FLEET_TIMEOUT_SECONDS=3600 $(BIN)/python -m pytest -q tests/integration/test_fleet.py $(ARGS)

fuzz-api: install ## send the query service 5,000 and more requests that its OpenAPI document allows (minutes)
	@CLIPTIDE_FUZZ_EXAMPLES=$${CLIPTIDE_FUZZ_EXAMPLES:-150} $(BIN)/python -m pytest -q -s tests/query_api/contract/test_fuzz.py

slow-long: install ## hold 500 slow connections for 30 s to a query service with its default time-outs
	@CLIPTIDE_TEST_SLOW_CONNECTIONS=500 $(BIN)/python -m pytest -q tests/query_api/http/connections/test_slow_connections.py

producer-rust: install ## build Rust's example for producers (minutes) and run it against Apache Kafka
	@CLIPTIDE_TEST_RUST=1 $(BIN)/python -m pytest -q --timeout=2400 tests/kafka/test_producers.py tests/examples/test_examples.py -k rust

store-long: install ## on an S3 server, kill writers 300 times and let 8 writers race 200 times (half an hour; needs versitygw)
	@CLIPTIDE_TEST_STORE_KILLS=300 CLIPTIDE_TEST_STORE_RACES=200 $(BIN)/python -m pytest -q --timeout=3600 tests/object_stores $(ARGS)
	@$(BIN)/python -m crashes.campaign store_faults

opensearch-cluster: install ## kill the primary's node of three OpenSearch nodes under load (minutes; needs a JDK and Maven)
	@CLIPTIDE_TEST_CLUSTER=1 $(BIN)/python -m pytest -q -s tests/opensearch_engine/test_three_nodes.py $(ARGS)

lint: install ## check style and types (never edits)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@cd clients/python && ../../$(BIN)/mypy

format: install ## rewrite the code in the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

figures: install ## measure every figure of benchmarks/ (up to five minutes each)
	@$(BIN)/python -m benchmarks all $(ARGS)

crash-long: install ## kill writers 1,000 times, cut the power 5,000 times, damage 1,000 files and 1,000 objects
	@OMP_NUM_THREADS=1 $(BIN)/python -m crashes.campaign $(ARGS)

LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.10

lock: install ## pin the newest versions that pyproject.toml allows, and the part of them that each image installs
	@$(LOCK) --all-extras pyproject.toml --output-file requirements.lock
	@for use in serve demo build; do cp requirements.lock requirements-$$use.lock; done  # uv keeps these versions
	@$(LOCK) --extra opensearch pyproject.toml --output-file requirements-serve.lock
	@$(LOCK) --extra demo pyproject.toml --output-file requirements-demo.lock
	@echo 'setuptools>=77' | $(LOCK) - --output-file requirements-build.lock

sbom: install ## print what the images of the services install (CycloneDX, JSON)
	@$(BIN)/python -m tools.sbom requirements-serve.lock

audit: install ## ask PyPI's database for known weaknesses of what the images install; fails if it cannot be asked
	@$(BIN)/uv tool run pip-audit --strict --disable-pip --require-hashes -r requirements-serve.lock

system-deps: ## install the Debian packages that some tests need: a JDK, Maven, Go, kcat and Node.js for Kafka and the examples, Prometheus, Alertmanager, Compose, Chromium
	apt-get update
	apt-get install --yes --no-install-recommends openjdk-17-jdk-headless maven golang-go prometheus prometheus-alertmanager docker-compose chromium kcat
	command -v npm > /dev/null || apt-get install --yes --no-install-recommends nodejs npm

kustomize: ## build kustomize, with which the tests render deploy/kubernetes where there is no kubectl (needs Go)
	GOBIN=$${GOBIN:-/usr/local/bin} go install sigs.k8s.io/kustomize/kustomize/v5@$(KUSTOMIZE)

helm: ## build Helm, with which the tests render the chart of deploy/helm (needs Go; two minutes)
	GOBIN=$${GOBIN:-/usr/local/bin} go install helm.sh/helm/v3/cmd/helm@$(HELM)

versitygw: ## build the S3 server on which the tests keep an index in an object store (needs Go)
	@set -e; case "$$(go env GOVERSION)" in go1.1[0-9]*|go1.20*) \
		GOROOT=$$(cd / && go mod download -json $(NEWER_GO) | sed -n 's/.*"Dir": "\(.*\)",$$/\1/p'); \
		chmod -R u+x "$$GOROOT"/bin "$$GOROOT"/pkg/tool; export GOROOT PATH="$$GOROOT/bin:$$PATH";; esac; \
		GOBIN=$${GOBIN:-/usr/local/bin} go install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW)

image-test: install ## build each image of deploy/Dockerfile and run what it holds (root; downloads gigabytes; half an hour)
	@$(BIN)/python -m tools.image_test $(ARGS)

image-test-deps: ## install the Debian packages that image-test needs: buildah and debootstrap
	apt-get update
	apt-get install --yes --no-install-recommends buildah debootstrap

clean: ## remove what the other targets made
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
