# What a newcomer and a CI machine do with Portcullis. `make run` and `make test` are the two to know.

CARGO ?= cargo
# nginx and HAProxy are in sbin, which users have not always in their path.
export PATH := $(PATH):/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help run test bench chaos check fuzz websockets fmt docs clean setup setup-build setup-test setup-bench

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup-build ## Build, and start a gateway before two small upstreams.
	$(CARGO) run --locked -- demo

test: setup-test ## Run every test, those in the documentation included.
	$(CARGO) test --locked

bench: setup-bench ## Measure the parts, then the whole beside nginx, HAProxy and bare Pingora.
	$(CARGO) bench --locked $(patsubst benches/%.rs,--bench %,$(wildcard benches/*.rs))
	$(CARGO) build --locked --release --example bare_pingora
	$(CARGO) bench --locked --bench end_to_end -- --markdown docs/benchmarks.md --svg docs/benchmarks.svg

chaos: setup-test ## Let upstreams fail under load, and print what clients notice.
	PORTCULLIS_CHAOS_SECONDS=60 $(CARGO) test --locked --test chaos -- --nocapture --test-threads 1

check: setup-build ## Formatting, lints, licences, known vulnerabilities.
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	.ci/deny

fuzz: setup-build ## Throw random bytes at what reads those of strangers, a minute each.
	.ci/fuzz 60

websockets: setup-build ## Run the Autobahn test suite through the gateway (with Python 2.7).
	.ci/websockets all

fmt: setup-build ## Format the code.
	$(CARGO) fmt

docs: setup-build ## Write the reference pages anew, and the library's documentation.
	$(CARGO) run --locked -- docs
	PORTCULLIS_WRITE_DOCS=1 $(CARGO) test --locked --test reasons --test guides
	$(CARGO) doc --locked --no-deps

clean: ## Remove everything that was built.
	$(CARGO) clean

setup: setup-build setup-test setup-bench ## Install what building, testing and measuring need (Debian, Ubuntu).

# Pingora builds zlib-ng with cmake.
setup-build:
	@.ci/need cc=build-essential cmake=cmake curl=curl
	@command -v $(CARGO) >/dev/null || { \
	  echo "Rust is missing: install it from https://rustup.rs, open a new shell, and run make again." >&2; exit 1; }

setup-test: setup-build tests/schema/node_modules tests/readers/venv
	@.ci/need promtool=prometheus systemd-analyze=systemd openssl=openssl sslscan=sslscan haproxy=haproxy pebble=pebble \
	  redis-server=redis-server dnsmasq=dnsmasq-base h2load=nghttp2-client ip=iproute2 \
	  chromium=chromium chromedriver=chromium-driver

setup-bench: setup-build
	@.ci/need nginx=nginx haproxy=haproxy redis-server=redis-server

# The validator behind YAML support in editors.
tests/schema/node_modules: tests/schema/package.json
	@.ci/need node=nodejs npm=npm
	@npm install --prefix tests/schema --no-package-lock --no-audit --no-fund --silent
	@touch $@

# The parsers that read again what goes upstream.
tests/readers/venv: tests/readers/requirements.txt
	@.ci/need python3=python3
	@python3 -c 'import ensurepip' 2>/dev/null || .ci/need =python3-venv
	@python3 -m venv --clear $@
	@$@/bin/pip install --quiet --disable-pip-version-check --requirement $< || { rm -rf $@; exit 1; }
	@touch $@
