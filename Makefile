# Plumb's commands. "make" alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO ?= go
BIN := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
# Tools and their versions are the tool lines of tools/go.mod.
TOOL := $(GO) tool -modfile=tools/go.mod
# What make test runs on; empty for everything. Example: make test PACKAGES=./internal/plan/...
PACKAGES ?= ./...
# Flags of the benchmark, such as -quick or -sizes 100.
BENCHFLAGS ?=
# Extra words for go test, such as -run TestName -v.
TESTFLAGS ?=
# The image that make image builds, and the program that builds it.
IMAGE ?=
CONTAINER ?= docker
LOCALCLUSTER_SOURCES := $(wildcard localcluster/go.mod localcluster/go.sum localcluster/build.sh) \
	$(shell find localcluster -name '*.go' -not -name '*_test.go' 2>/dev/null)

export CGO_ENABLED ?= 0

.PHONY: help
help: ## list these commands
	@echo "Usage: make COMMAND"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: $(BIN)/localcluster ## build bin/plumb, bin/localcluster and bin/kubectl
	@$(MAKE) --no-print-directory plumb

.PHONY: plumb
plumb: ## build bin/plumb only
	@mkdir -p $(BIN)
	$(GO) build -ldflags "$(LDFLAGS)" -o $(BIN)/plumb ./cmd/plumb

# The control plane takes minutes to build, so only when its sources changed.
$(BIN)/localcluster: $(LOCALCLUSTER_SOURCES)
	@echo "building the local control plane: some minutes the first time"
	localcluster/build.sh $(BIN)
	@touch $@

.PHONY: image
image: ## build the operator's image, IMAGE=name:tag
	@if [ -z "$(IMAGE)" ]; then echo "name it: make image IMAGE=registry.example.org/plumb:v1"; exit 2; fi
	$(CONTAINER) build --build-arg VERSION=$(VERSION) -t $(IMAGE) .

.PHONY: try
try: build ## run the operator on the example, in a cluster of its own
	@scratch=$$(mktemp -d "$${TMPDIR:-/tmp}/plumb-demo.XXXXXX"); \
	cp -R examples/demo/. "$$scratch"; \
	git -C "$$scratch" init -q -b main; \
	git -C "$$scratch" add -A; \
	git -C "$$scratch" -c user.name=plumb -c user.email=plumb@localhost commit -q -m "the example"; \
	echo "A Git repository with the example: $$scratch"; \
	echo "Change a file there, commit, and see it live."; \
	$(BIN)/plumb try "$$scratch" --path clusters/demo

.PHONY: test
test: lint $(BIN)/localcluster ## lint, then all tests under the race detector
	@tools/test.sh "$(PACKAGES)" $(TESTFLAGS)

.PHONY: lint
lint: ## gofmt, go vet and staticcheck
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "not formatted, run gofmt -w:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet $(PACKAGES)
	$(GO) -C tools vet ./testlog/...
	$(TOOL) staticcheck $(PACKAGES)

.PHONY: generate
generate: ## generate the CRDs from Flux's API modules
	tools/crds.sh

.PHONY: bench
bench: build ## run the benchmark, print its table, keep results in bench/results
	$(GO) build -o $(BIN)/bench ./bench
	$(BIN)/bench $(BENCHFLAGS)

.PHONY: clean
clean: ## remove what was built and benchmark results
	rm -rf $(BIN) bench/results
