# `make` lists the targets. Needs GNU make 3.81 and Python 3.11 to 3.14.

PYTHON ?=
ARGS ?=
JOBS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); \
	if [ "$$cores" -gt 4 ]; then echo 4; elif [ "$$cores" -lt 2 ]; then echo 2; else echo "$$cores"; fi)
TORCH_TESTS ?= torch and not cuda
COMPOSE := cd deploy/compose && env -u COMPOSE_FILE docker compose
SECRETS ?= deploy/compose/secrets
LAUNCHER := .venv/bin/python -m launcher
PYTEST := TMPDIR="$(CURDIR)/.cache/tmp" .venv/bin/python -m pytest -q
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
SOURCES := libs/common/common services/edge-limiter/edge_limiter \
	services/inference/inference services/inference/training services/metrics/metrics \
	services/analyst/analyst deploy/openapi deploy/local/launcher deploy/local/bootstrap.py \
	deploy/local/lock.py $(wildcard deploy/compose/*.py) deploy/k8s/prometheus_rule.py deploy/k8s/k8s_check conftest.py loadtests docs/site
TESTS := libs/common/tests $(wildcard services/*/tests) deploy/local/tests deploy/k8s/tests tests

# The only place that names the version; every package reads it from there.
VERSION_OF_CODE := sed -n 's/^version = "\(.*\)"/\1/p' libs/common/pyproject.toml

# Ignore Python and pip settings of the shell, except those that say where packages come from.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONOPTIMIZE PIP_TARGET PIP_PREFIX PIP_ROOT \
	PIP_PYTHON PIP_REQUIRE_HASHES PIP_CONSTRAINT PIP_NO_BINARY
export PIP_USER := 0

# FORCE=1 makes `clean` delete without asking; PODMAN_FLAGS is passed to podman by `test-pods`.

# $(call set_up,PURPOSE,VENV) creates or updates an environment. It uses the environment's own
# Python if there is one, otherwise the first that is new enough.
define set_up
@for python in $(or $(PYTHON),$(2)/bin/python python3.13 python3.14 python3.12 python3.11 python3); do \
	if "$$python" -E -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then \
		exec "$$python" deploy/local/bootstrap.py $(1); \
	fi; \
done; \
echo "Python 3.11 or later is needed$(if $(PYTHON),; $(PYTHON) is not)." \
	"On Debian and Ubuntu: apt install python3 python3-venv; on macOS: brew install python@3.13." \
	"Or name one: make $@ PYTHON=/path/to/python3" >&2; exit 1
endef

# These commands need only the standard library, so any Python works when .venv is missing.
ASK = PYTHONPATH=deploy/local "$(or $(shell \
	for python in .venv/bin/python $(PYTHON) python3.13 python3.14 python3.12 python3.11 python3; do \
		"$$python" -E -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo "$$python" && break; \
	done),$(error Python 3.11 or later is needed))" -m launcher

.DEFAULT_GOAL := help
.PHONY: $(shell awk -F: '/^[a-z0-9-]+:/ { print $$1 }' $(firstword $(MAKEFILE_LIST)))

help: ## list all targets
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

##@ Run on this machine

run: ## start PostgreSQL, Valkey and the four services
	$(call set_up,run,.venv)
	@$(LAUNCHER) run

stop: ## stop what `make run` started
	@$(ASK) stop

status: ## show what is running and whether it is ready
	@$(ASK) status

logs: ## follow all logs, or: make logs SERVICE=metrics
	@$(ASK) logs --follow $(SERVICE) || [ $$? = 130 ]

token: ## print the admin token
	@$(ASK) token

dev: ## like run; a service restarts when its source changes
	$(call set_up,dev,.venv)
	@$(LAUNCHER) dev

infra: ## start only the stores, to run services by hand
	$(call set_up,run,.venv)
	@$(LAUNCHER) infra

clean: stop ## stop, and delete stored data and caches; asks first
	@if [ -z "$(FORCE)" ]; then \
		printf 'Delete all stored predictions, reports and keys in .sluice? [y/N] '; \
		read -r answer; [ "$$answer" = y ]; \
	fi
	@rm -rf .sluice .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

distclean: clean ## clean, and delete the virtual environments
	@rm -rf .venv .venv.new .venv-torch .venv-torch.new

##@ Test

test: ## run all tests; some: make test ARGS="-k limiter"
	$(call set_up,dev,.venv)
	@$(PYTEST) -n $(JOBS) --dist loadfile $(ARGS)

test-api: tools ## send thousands of generated requests (needs Chromium)
	@API_TESTS=1 $(PYTEST) tests/api $(ARGS)

test-browser: tools ## test the dashboard (needs Chromium and npm)
	@BROWSER_TESTS=1 $(PYTEST) tests/browser $(ARGS)

test-topologies: ## test PgBouncer and Redis Cluster (needs pgbouncer)
	$(call set_up,dev,.venv)
	@TOPOLOGY_TESTS=1 $(PYTEST) -n0 tests/topologies $(ARGS)

test-compose: tools ## start and break the containers (needs Docker)
	@COMPOSE_TESTS=1 $(PYTEST) tests/compose $(ARGS)

test-gateways: ## test the edge behind nginx (needs nginx)
	$(call set_up,dev,.venv)
	@GATEWAY_TESTS=1 $(PYTEST) -n0 services/edge-limiter/tests/gateways $(ARGS)

test-pods: ## run the Kubernetes pods with podman
	$(call set_up,dev,.venv)
	@deploy/compose/make-secrets deploy/k8s/overlays/dev/secrets
	@POD_TESTS=1 $(PYTEST) -n0 deploy/k8s/tests/pods $(ARGS)

test-torch: torch ## test the torch engine
	@TMPDIR="$(CURDIR)/.cache/tmp" .venv-torch/bin/python -m pytest -q -m "$(TORCH_TESTS)" \
		services/inference $(ARGS)

chaos: ## break everything for five minutes under load
	$(call set_up,dev,.venv)
	@PYTHONPATH=loadtests:tests:services/analyst/tests .venv/bin/python -m chaos $(ARGS)

soak: ## load for an hour; memory and latency must stay flat
	$(call set_up,dev,.venv)
	@PYTHONPATH=loadtests:tests:services/analyst/tests .venv/bin/python -m chaos.soak $(ARGS)

##@ Check

check: ## run ruff, mypy --strict and the import contracts
	$(call set_up,dev,.venv)
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@for part in "$(SOURCES)" $(TESTS); do .venv/bin/python -m mypy --strict $$part || exit 1; done
	@.venv/bin/lint-imports

k8s-check: tools ## validate the manifests (needs kustomize or kubectl)
	@deploy/compose/make-secrets deploy/k8s/overlays/dev/secrets
	@PYTHONPATH=deploy/k8s .venv/bin/python -m k8s_check
	@K8S_TESTS=1 .venv/bin/python -m pytest -q -n0 deploy/k8s/tests $(ARGS)

alerts: ## rewrite the PrometheusRule; RUNBOOKS=URL sets yours
	$(call set_up,run,.venv)
	@.venv/bin/python deploy/k8s/prometheus_rule.py $(RUNBOOKS)

openapi: ## rewrite the edge's OpenAPI document from the code
	$(call set_up,dev,.venv)
	@.venv/bin/python deploy/openapi

docs: tools ## build the documentation site; read it: ARGS=serve
	@.venv/bin/python docs/site/build_site.py $(ARGS)

lock: ## rewrite requirements/*.txt; update: ARGS=--upgrade
	$(call set_up,dev,.venv)
	@.venv/bin/python deploy/local/lock.py $(ARGS)

version: ## print the version of the code
	@$(VERSION_OF_CODE)

tools: ## install the tools of the browser and manifest tests
	$(call set_up,tools,.venv)

torch: ## install torch and transformers into .venv-torch
	$(call set_up,torch,.venv-torch)

model: torch ## rebuild the model; score: ARGS="--eval FILE.tsv"
	@cd services/inference && ../../.venv-torch/bin/python -m training.build $(ARGS)

##@ Deploy

# The labels of the images.
images image-cuda up: export VERSION = $(shell $(VERSION_OF_CODE))
images image-cuda up: export REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

images: ## build the services' container images, tagged TAG
	@deploy/compose/make-secrets $(SECRETS)
	@$(COMPOSE) build

image-cuda: ## build sluice/inference-cuda for NVIDIA GPUs (large)
	@docker build --file deploy/compose/Dockerfile --target cuda --build-arg SERVICE=inference \
		--build-arg VERSION --build-arg REVISION --tag sluice/inference-cuda:$(or $(TAG),local) .

up: ## start everything in containers
	@deploy/compose/make-secrets $(SECRETS)
	@deploy/compose/select-overlays $(SECRETS)
	@$(COMPOSE) up --build --detach --wait

down: ## stop the containers; data and secrets stay
	@$(COMPOSE) --profile '*' down

##@ Benchmark

bench: ## run the benchmarks; one: make bench ARGS="--only edge"
	$(call set_up,tools,.venv)
	@PYTHONPATH=loadtests:tests:services/analyst/tests .venv/bin/python -m benchmarks $(ARGS)

prove-edge: ## prove the edge's limits on live processes
	$(call set_up,dev,.venv)
	@PYTHONPATH=loadtests:tests:services/analyst/tests .venv/bin/python -m benchmarks.edge.proofs $(ARGS)

load: ## load a system with 1,080 clients for two minutes
	$(call set_up,dev,.venv)
	@PYTHONPATH=loadtests:tests:services/analyst/tests .venv/bin/python loadtests/load.py $(ARGS)
