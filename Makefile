# What one does with outpost. `make` alone says what there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export CGO_ENABLED := 0
AGENT := internal/engine/container/agent.bin
GUEST := internal/engine/microvm/guest.bin
GO_FILES := $(shell git ls-files --cached --others --exclude-standard -- '*.go' '*.s' '*.sql' '*.html') go.mod go.sum

.PHONY: help tools test-tools build man check lint test test-unit test-kernels test-microvm demo corpus bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

tools: ## install what building and testing need (by apt, only what is missing)
	@scripts/install-tools

test-tools: # and what the examples' tests run, too
	@scripts/install-tools tests

build: bin/outpost ## bin/outpost, static, with the in-sandbox agent inside

# The agent runs inside every machine; the container engine embeds it, so it is built first.
$(AGENT): $(GO_FILES)
	@if [ -d cmd/outpost-agent ]; then mkdir -p $(@D) && go build -trimpath -ldflags="-s -w" -o $@ ./cmd/outpost-agent; fi

# The first process of microVMs' guests has the container engine inside, and with it the agent.
$(GUEST): $(AGENT) $(GO_FILES)
	go build -trimpath -ldflags="-s -w" -o $@ ./cmd/outpost-guest

bin/outpost: $(AGENT) $(GUEST) $(GO_FILES)
	go build -trimpath -ldflags="-s -w" -o $@ ./cmd/outpost

man: bin/outpost ## the manual pages, into bin/man
	@bin/outpost man bin/man

lint: $(AGENT) $(GUEST) ## gofmt, go vet, staticcheck, go.mod
	@bad="$$(gofmt -l $$(git ls-files --cached --others --exclude-standard -- '*.go'))"; \
	  [ -z "$$bad" ] || { echo "gofmt -w these:"; echo "$$bad"; exit 1; }
	go vet ./...
	go vet -tags kernellane ./test/kernels/...
	go tool staticcheck ./...
	go mod tidy -diff

check: tools build lint ## lint and the quick tests: what to run before each commit
	go test -short -json ./... | go run ./test/summary

test: test-tools build lint ## everything: all tests, end-to-end ones and other kernels included
	go test -timeout 25m -json ./... | go run ./test/summary
	$(MAKE) --no-print-directory test-kernels
	$(MAKE) --no-print-directory test-microvm

# Each package named here runs as one static binary in guests of Linux 6.1 and 6.12 with cgroup v2, and its tests must
# end there as they do on the host. What they need beside their binary is told by KERNEL_FLAGS; KERNEL_ARGS chooses
# tests, as in KERNEL_ARGS=-test.run=Isolation. What takes minutes in emulation, or is for the host alone, is named …OnTheHost and runs
# there alone.
KERNEL_PACKAGES := internal/engine/container internal/cell/filter
KERNEL_FLAGS := --image "deb:trixie?include=python3"
KERNEL_ARGS := -test.skip=OnTheHost
test-kernels: tools $(AGENT) $(GUEST) ## the kernel-near tests under Linux 6.1 and 6.12 with cgroup v2, in QEMU
	@dir="$$(mktemp -d)"; trap 'rm -r "$$dir"' EXIT; \
	  go test -json $(KERNEL_PACKAGES:%=./%) $(KERNEL_ARGS) | tee "$$dir/host.json" | go run ./test/summary; \
	  go test -tags kernellane -c -o "$$dir/guest.test" ./test/kernels/guest; tests=(--test "$$dir/guest.test"); \
	  for p in $(KERNEL_PACKAGES); do go test -c -o "$$dir/$$(basename $$p).test" ./$$p; tests+=(--test "$$dir/$$(basename $$p).test"); done; \
	  go run ./test/kernels "$${tests[@]}" --expect "$$dir/host.json" $(KERNEL_FLAGS) -- $(KERNEL_ARGS)

# Real Firecracker under its real jailer, with the KVM of an emulated processor. Each case boots a guest in the guest, which takes some ten
# seconds: `make test` runs those that no other test stands for, MICROVM_RUN='TestMicroVMs$$$$' all of the engines' (16 minutes).
MICROVM_CASES := a_program_prints|what_a_program_that_stays|files_go_in_and|a_terminal_is|everything_asked|memory_over|the_disk_has|killing_ends|machine_is_found_again|starts_again_on|layers_are_shown|a_disk_keeps|started_ahead_runs
MICROVM_RUN := (TestMicroVMs$$|TestGuestsOf|TestAMonitorThat|TestAGuestThat|TestAKilled)/($(MICROVM_CASES))
test-microvm: tools $(GUEST) ## microVMs of real Firecracker, in an emulated processor with virtualization
	@dir="$$(mktemp -d)"; trap 'rm -r "$$dir"' EXIT; \
	  go test -c -o "$$dir/microvm.test" ./internal/engine/microvm; \
	  go run ./test/kernels --kernel 6.12 --microvm --memory 3072 --timeout 20m --test "$$dir/microvm.test" --image "deb:trixie?include=python3" -- -test.run='$(MICROVM_RUN)'

demo: tools build ## create a sandbox, run a program in it, show both answers
	@bin/outpost demo

corpus: tools build ## run a corpus of programs through the API and compare their exit codes
	@go run ./test/corpus

bench: tools build ## what create and exec cost on this machine
	@bin/outpost bench

clean: ## remove what was built
	rm -rf bin $(AGENT) $(GUEST)
