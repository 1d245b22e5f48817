# Every command of the project; `make` alone explains them. Needs Python 3.11 to 3.14 and GNU make 3.81 or later.

PYTHON ?=
ARGS ?=
JOBS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); \
	if [ "$$cores" -gt 4 ]; then echo 4; elif [ "$$cores" -lt 2 ]; then echo 2; else echo "$$cores"; fi)
TORCH_TESTS ?= torch and not cuda
COMPOSE := cd deploy/compose && env -u COMPOSE_FILE docker compose
SECRETS ?= deploy/compose/secrets
LAUNCHER := .venv/bin/python -m launcher
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
DISTRIBUTIONS := sluice-common sluice-edge-limiter sluice-inference sluice-metrics sluice-analyst sluice-launcher
SOURCES := libs/common/common services/edge-limiter/edge_limiter services/inference/inference services/inference/training services/metrics/metrics \
	services/analyst/analyst deploy/local/launcher deploy/openapi deploy/local/bootstrap.py deploy/local/lock.py deploy/local/machine.py deploy/compose/healthcheck.py deploy/compose/reload.py deploy/k8s/k8s_check conftest.py loadtests
TESTS := libs/common/tests $(wildcard services/*/tests) deploy/local/tests deploy/k8s/tests tests
LOCKED := ./libs/common ./services/edge-limiter ./services/inference ./services/metrics \
	./services/analyst[generativeai,genai] ./deploy/local

# What a shell has set for another Python would lead ours, or what pip installs for it, elsewhere. Where pip fetches from stays.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONOPTIMIZE PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_REQUIRE_HASHES PIP_CONSTRAINT PIP_NO_BINARY
export PIP_USER := 0

# $(call set_up,PURPOSE,VENV): the environment, made by the Python it already has, or by the first that is new enough.
define set_up
@for python in $(or $(PYTHON),$(2)/bin/python python3.13 python3.14 python3.12 python3.11 python3); do \
	if "$$python" -E -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then \
		exec "$$python" deploy/local/bootstrap.py $(1); \
	fi; \
done; \
echo "Python 3.11 or later is needed$(if $(PYTHON),; $(PYTHON) is not). On Debian and Ubuntu: apt install python3 python3-venv;" \
	"on macOS: brew install python@3.13. Or name one: make $@ PYTHON=/path/to/python3" >&2; exit 1
endef

# Whoever asks about the system, or ends it, needs no package: another Python does where .venv is gone or not made yet.
ASK = PYTHONPATH=deploy/local "$(or $(shell for python in .venv/bin/python $(PYTHON) python3.13 python3.14 python3.12 python3.11 python3; do \
	"$$python" -E -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo "$$python" && break; done),$(error Python 3.11 or later is needed))" -m launcher

.DEFAULT_GOAL := help
.PHONY: $(shell awk -F: '/^[a-z0-9-]+:/ { print $$1 }' $(firstword $(MAKEFILE_LIST)))

help: ## explain every target
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## start everything on this machine: embedded PostgreSQL and Valkey, migrations, the four services
	$(call set_up,run,.venv)
	@$(LAUNCHER) run

stop: ## stop what `make run` started, in order
	@$(ASK) stop

restart: ## restart one service: make restart SERVICE=metrics
	@$(ASK) restart $(SERVICE)

status: ## show what is running and whether it is ready
	@$(ASK) status

logs: ## follow all logs, or one service's: make logs SERVICE=metrics
	@$(ASK) logs --follow $(SERVICE) || [ $$? = 130 ]

dev: ## like run, but restart a service when its source changes
	$(call set_up,dev,.venv)
	@$(LAUNCHER) dev

infra: ## start only the stores, and print the variables for running a service by hand
	$(call set_up,run,.venv)
	@$(LAUNCHER) infra

test: ## run every test but the torch engine's, on real PostgreSQL and Valkey; some: make test ARGS="-k limiter"
	$(call set_up,dev,.venv)
	@mkdir -p .cache/tmp
	@TMPDIR="$(CURDIR)/.cache/tmp" .venv/bin/python -m pytest -q -n $(JOBS) --dist loadfile $(ARGS)

check: ## ruff, mypy --strict and the import contracts
	$(call set_up,dev,.venv)
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@for part in "$(SOURCES)" $(TESTS); do .venv/bin/python -m mypy --strict $$part || exit 1; done
	@.venv/bin/lint-imports

torch: ## set up .venv-torch: all that .venv has, plus torch, transformers and peft (large)
	$(call set_up,torch,.venv-torch)

test-torch: torch ## run the tests of the torch engine
	@mkdir -p .cache/tmp
	@TMPDIR="$(CURDIR)/.cache/tmp" .venv-torch/bin/python -m pytest -q -m "$(TORCH_TESTS)" services/inference $(ARGS)

model: torch ## rebuild the bundled model: make model ARGS="--eval FILE.tsv"
	@cd services/inference && ../../.venv-torch/bin/python -m training.build $(ARGS)

# The labels of the images.
images image-cuda up: export VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' libs/common/pyproject.toml)
images image-cuda up: export REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

images: ## build the container images of the four services; TAG=0.2.0 tags them
	@deploy/compose/make-secrets $(SECRETS)
	@$(COMPOSE) build

image-cuda: ## build the image of inference with torch for NVIDIA GPUs, sluice/inference-cuda (large)
	@docker build --file deploy/compose/Dockerfile --target cuda --build-arg SERVICE=inference \
		--build-arg VERSION --build-arg REVISION --tag sluice/inference-cuda:$(or $(TAG),local) .

up: ## start everything in containers, and wait until all is healthy
	@deploy/compose/make-secrets $(SECRETS)
	@$(COMPOSE) up --build --detach --wait

down: ## stop the containers; data and secrets stay
	@$(COMPOSE) --profile '*' down

test-compose: ## build, start and break the system in containers; needs Docker
	$(call set_up,tools,.venv)
	@mkdir -p .cache/tmp
	@COMPOSE_TESTS=1 TMPDIR="$(CURDIR)/.cache/tmp" .venv/bin/python -m pytest -q tests/compose $(ARGS)

test-api: tools ## send thousands of generated requests through the edge; API_SEED=1 generates others; needs Chromium
	@mkdir -p .cache/tmp
	@API_TESTS=1 TMPDIR="$(CURDIR)/.cache/tmp" .venv/bin/python -m pytest -q tests/api $(ARGS)

test-browser: ## test the dashboard in a headless Chromium, which must be installed (as must npm, for axe-core)
	$(call set_up,tools,.venv)
	@mkdir -p .cache/tmp
	@BROWSER_TESTS=1 TMPDIR="$(CURDIR)/.cache/tmp" .venv/bin/python -m pytest -q tests/browser $(ARGS)

smoke-gemini: ## try the real Gemini with your GEMINI_API_KEY
	$(call set_up,dev,.venv)
	@.venv/bin/python -m analyst.smoke

bench-inference: ## compare inference with its peers, in one run (installs them below .cache)
	$(call set_up,dev,.venv)
	@.venv/bin/python loadtests/bench_inference.py $(ARGS)

bench-edge: ## compare the edge with nginx, HAProxy, Envoy and others, in one run (installs Envoy below .cache)
	$(call set_up,dev,.venv)
	@PYTHONPATH=loadtests .venv/bin/python -m benchmarks.edge $(ARGS)

prove-edge: ## prove the edge's promises on live processes: make prove-edge ARGS="--only bursts,outages"
	$(call set_up,dev,.venv)
	@PYTHONPATH=loadtests .venv/bin/python -m benchmarks.edge.proofs $(ARGS)

bench-limiter: ## compare the limiter alone with others, in one run (installs them below .cache)
	$(call set_up,dev,.venv)
	@PYTHONPATH=loadtests .venv/bin/python -m benchmarks.limiter $(ARGS)

bench-metrics: ## measure ingestion, a minute of kills, aggregates over ten million rows (5 GB of disk; installs chdb below .cache)
	$(call set_up,dev,.venv)
	@.venv/bin/python loadtests/bench_metrics.py $(ARGS)

bench-analyst: ## compare single flight with its peers, and measure the cache (installs them below .cache)
	$(call set_up,dev,.venv)
	@.venv/bin/python loadtests/bench_analyst.py $(ARGS)

bench-baseline: ## compare the whole system with an afternoon's FastAPI service, in one run (installs it below .cache)
	$(call set_up,dev,.venv)
	@.venv/bin/python loadtests/bench_baseline.py $(ARGS)

load: ## load a system of its own with 1,080 clients for two minutes and judge it; writes an HTML report
	$(call set_up,dev,.venv)
	@.venv/bin/python loadtests/load.py $(ARGS)

bench: ## run every benchmark, and write the summary and plots into docs/benchmarks.md; resumes where it stopped
	$(call set_up,tools,.venv)
	@.venv/bin/python loadtests/bench.py $(ARGS)

k8s-check: ## render, validate and cross-check the Kubernetes overlays; needs kustomize or kubectl
	$(call set_up,tools,.venv)
	@deploy/compose/make-secrets deploy/k8s/overlays/dev/secrets
	@PYTHONPATH=deploy/k8s .venv/bin/python -m k8s_check
	@K8S_TESTS=1 .venv/bin/python -m pytest -q -n0 deploy/k8s/tests $(ARGS)

test-topologies: ## test everything behind PgBouncer and on a Redis Cluster; needs the program pgbouncer
	$(call set_up,dev,.venv)
	@mkdir -p .cache/tmp
	@TOPOLOGY_TESTS=1 TMPDIR="$(CURDIR)/.cache/tmp" .venv/bin/python -m pytest -q -n0 tests/topologies $(ARGS)

test-gateways: ## test the recipe for nginx that asks the edge (deploy/gateways); needs the program nginx
	$(call set_up,dev,.venv)
	@mkdir -p .cache/tmp
	@GATEWAY_TESTS=1 TMPDIR="$(CURDIR)/.cache/tmp" .venv/bin/python -m pytest -q -n0 services/edge-limiter/tests/gateways $(ARGS)

test-pods: ## test the services' pods with podman, which must have their images; if needed, PODMAN_FLAGS="--runtime runc"
	$(call set_up,dev,.venv)
	@deploy/compose/make-secrets deploy/k8s/overlays/dev/secrets
	@POD_TESTS=1 .venv/bin/python -m pytest -q -n0 deploy/k8s/tests/pods $(ARGS)

bench-dashboard: ## measure the dashboard in a headless Chromium: bytes, first paint, long tasks, heap over ten minutes
	$(call set_up,tools,.venv)
	@.venv/bin/python loadtests/bench_dashboard.py $(ARGS)

chaos: ## break everything for five minutes under load: make chaos ARGS="--seed N --minutes M --break drop-event"
	$(call set_up,dev,.venv)
	@PYTHONPATH=loadtests:services/analyst/tests .venv/bin/python -m chaos $(ARGS)

soak: ## load for an hour; memory, descriptors, p99 and tables must stay flat: make soak ARGS="--minutes M"
	$(call set_up,dev,.venv)
	@PYTHONPATH=loadtests .venv/bin/python -m chaos.soak $(ARGS)

tools: ## add to .venv what browser tests, API fuzzing and manifest checks need
	$(call set_up,tools,.venv)

openapi: ## write the OpenAPI document that the edge serves, after a change of the API
	$(call set_up,dev,.venv)
	@.venv/bin/python deploy/openapi

lock: ## re-resolve constraints.txt, for Python 3.11 to 3.14 on Linux and macOS
	$(call set_up,dev,.venv)
	@printf '%s\n' $(foreach one,$(LOCKED),'-e $(one)') '-r ./requirements-dev.txt' '-r ./requirements-tools.txt' \
		| UV_CUSTOM_COMPILE_COMMAND="make lock" .venv/bin/python -m uv pip compile --quiet --universal --generate-hashes \
			--python-version 3.11 $(addprefix --no-emit-package ,$(DISTRIBUTIONS)) -o constraints.txt -

clean: stop ## stop, and delete all stored data (.sluice) and caches; asks first, unless FORCE=1
	@if [ -z "$(FORCE)" ]; then \
		printf 'Delete all stored predictions, reports and keys in .sluice? [y/N] '; read -r answer; [ "$$answer" = y ]; \
	fi
	@rm -rf .sluice .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

distclean: clean ## clean, and delete the virtual environments
	@rm -rf .venv .venv-torch
