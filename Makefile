# What a developer runs. `make test` is everything but the other platforms;
# .ci/run is `make test` and those.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: build sizes test deps tools lint unit packages guests sweeps bounds fuzz e2e fmt clean

TOOLS := $(CURDIR)/.cache/tools
export CGO_ENABLED ?= 0

build: ## bin/weir for this machine, as it is released
	go build -trimpath -ldflags "-s -w" -o bin/weir ./appliance/cmd/weir

sizes: ## machine code in the binary, MB by module
	@mkdir -p .cache
	@go build -trimpath -o .cache/weir-symbols ./appliance/cmd/weir
	@go tool nm -size .cache/weir-symbols | awk '$$3 == "T" || $$3 == "t" { \
		name = match($$4, /^[a-z0-9.]+\.[a-z]+\/[^\/]+\/[^\/.(]+/) ? substr($$4, 1, RLENGTH) : "other, Go itself"; size[name] += $$2 } \
		END { for (name in size) if (size[name] > 1e5) printf "%6.2f %s\n", size[name] / 1e6, name }' | sort -rn

test: ## everything, on this machine
	.ci/test

deps: ## install what the tests need (Debian and npm packages)
	.ci/deps

tools: ## gofumpt, staticcheck and errcheck at their pinned versions
	mkdir -p $(TOOLS)
	go build -C .ci/tools -o $(TOOLS)/ mvdan.cc/gofumpt honnef.co/go/tools/cmd/staticcheck github.com/kisielk/errcheck

lint: tools ## format, vet, staticcheck, errcheck and the rules of .ci/lint
	.ci/lint/run $(TOOLS)

unit: packages guests sweeps bounds ## unit, property and crash tests, with the race detector

packages:
	CGO_ENABLED=1 go test -race -shuffle=on -timeout 30m $$(go list ./... | grep -v -e /cmd/weir/e2e -e /storage/storagetest -e /sdk/guest/guesttest)

# The SDKs' guests run on one goroutine: the race detector finds nothing there, and with
# it they take ten times as long to compile.
guests:
	go test -shuffle=on -timeout 10m ./sdk/guest/guesttest

# The sweeps take every sixth write with the race detector, and every one without it.
sweeps:
	CGO_ENABLED=1 go test -race -shuffle=on -timeout 30m ./storage/storagetest -sweep-step 6
	go test -shuffle=on -timeout 30m ./storage/storagetest -run AtEveryWrite

# What is allocated and resident is not the program's own under the race detector.
bounds:
	go test -count=1 -timeout 10m -run 'AllocatesNothing|MemoryIsFlat' ./appliance/api/kinesis ./appliance/delivery

fuzz: ## each fuzz target for a few seconds
	.ci/fuzz

e2e: ## the real binary: started, killed, started again, read back
	go test -count=1 -timeout 20m ./appliance/cmd/weir/e2e

fmt: tools
	$(TOOLS)/gofumpt -w $$(git ls-files '*.go')

clean:
	rm -rf bin dist .cache
