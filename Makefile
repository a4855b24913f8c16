SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := test

# Every module of the workspace.
MODULES := $(shell go list -m -f '{{.Dir}}')

# Programs that the tests start or that go test needs, each with its Debian package.
PROGRAMS := \
	cc:gcc \
	curl:curl \
	redis-server:redis-server \
	postgres:postgresql \

# Programs that only the tests in peers start.
PEERS := \
	chromium:chromium \
	haproxy:haproxy \
	nginx:nginx \
	node:nodejs \
	npm:npm \
	promtool:prometheus \
	python3:python3-urllib3 \
	varnishd:varnish \

FUZZTIME ?= 30s
TIMEOUT ?= 10m

LINT_VERSION := 2.15.0
LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$(LINT_VERSION)

# The race detector needs a C compiler.
RACE = $(shell command -v cc >/dev/null && [ "$$(go env CGO_ENABLED)" = 1 ] && echo -race)

step = @printf '\n== %s %s\n' "$$(date +%H:%M:%S)" "$(1)"
each = @for dir in $(MODULES); do echo "-- $${dir\#\#*/}"; cd "$$dir"; $(1); done

# Debian keeps the programs of each version of PostgreSQL apart.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:$(lastword $(wildcard /usr/lib/postgresql/*/bin))

.PHONY: test test-peers programs peers build tidy vet lint race alloc fuzz soak bench bench-quick bench-allocs

test: programs build tidy vet lint race alloc
	$(call step,all passed)

define install
	@for p in $(1); do \
		command -v "$${p%:*}" >/dev/null && continue; \
		echo "installing $${p#*:}"; \
		sudo=; [ "$$(id -u)" = 0 ] || sudo='sudo -n'; \
		{ $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$${p#*:}"; } && continue; \
		echo "$${p%:*} is missing: what needs it is skipped"; \
		[ "$${USHER_REQUIRE_SERVICES:-0}" != 1 ]; \
	done
endef

programs:
	$(call step,programs)
	$(call install,$(PROGRAMS))

peers:
	$(call step,programs of others)
	$(call install,$(PEERS))
	@cd peers/node; \
	[ node_modules/.package-lock.json -nt package-lock.json ] && exit; \
	npm ci || { echo 'the packages of npm are missing: what needs them is skipped'; [ "$${USHER_REQUIRE_SERVICES:-0}" != 1 ]; }

# As a user builds it: each module without the workspace.
build:
	$(call step,build of each module alone)
	$(call each,GOWORK=off go build ./...)

tidy:
	$(call step,go mod tidy)
	$(call each,go mod tidy -diff)

vet:
	$(call step,vet)
	go vet work

# golangci-lint for the modules that are named.
define golangci-lint
	@lint="go run $(LINT)"; \
	for installed in golangci-lint "$$(go env GOPATH)/bin/golangci-lint"; do \
		if "$$installed" version --short 2>/dev/null | grep -qx '$(LINT_VERSION)'; then lint="$$installed"; break; fi; \
	done; \
	echo "$$lint"; \
	for dir in $(1); do echo "-- $${dir##*/}"; cd "$$dir"; $$lint run --config '$(CURDIR)/.golangci.yml' ./...; done
endef

lint:
	$(call step,lint)
	$(call golangci-lint,$(MODULES))

race:
	$(call step,tests$(if $(RACE), with the race detector, WITHOUT the race detector: no C compiler))
	go test $(RACE) -shuffle=on -timeout=$(TIMEOUT) work

# The race detector makes allocations and instructions of its own.
alloc:
	$(call step,tests of allocations)
	go test -run='Alloc|NumberOfInstructions' -timeout=$(TIMEOUT) work

# usher beside programs and libraries of others. Their module stays out of the
# workspace.
test-peers: export GOWORK := off
test-peers: programs peers
	$(call step,tests beside programs of others)
	cd peers && go mod tidy -diff && go vet ./...
	$(call golangci-lint,$(CURDIR)/peers)
	cd peers && go test $(RACE) -count=1 -shuffle=on -timeout=$(TIMEOUT) ./...

fuzz:
	@for dir in $(MODULES); do cd "$$dir"; \
		go test -list='^Fuzz' ./... | awk '/^Fuzz/ {name[n++] = $$1} /^ok/ {for (i = 0; i < n; i++) print $$2, name[i]; n = 0}' | \
		while read -r package name; do \
			echo "== $$package $$name"; \
			go test -run='^$$' -fuzz="^$$name\$$" -fuzztime=$(FUZZTIME) "$$package" </dev/null; \
		done; \
	done

soak:
	USHER_SOAK=1 go test -count=1 -timeout=2h -v -run='$(or $(RUN),.)' work

# usher beside its rivals, in rounds: about 10 minutes on a machine that does nothing
# else. Writes benchmarks/report and the figures of README.md.
bench:
	cd benchmarks && GOWORK=off go run ./cmd/bench

# The same in about a minute, written to a temporary directory.
bench-quick:
	cd benchmarks && GOWORK=off go run ./cmd/bench -quick

# What hot paths may allocate, beside their rivals; part of alloc.
bench-allocs:
	cd benchmarks && GOWORK=off go test -count=1 -run=Alloc ./...
