SHELL := /bin/bash
GO    ?= go
BIN   := bin/weir
LAB   := bin/weir-lab

# How long each fuzz target runs in make fuzz.
FUZZTIME ?= 5s

.PHONY: build lab release image demo docs man test test-units test-whole test-timed race fuzz lint deps proto clip bench-discovery bench-forward sim

# As it is released, and shares its cache with that: without cgo.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -o $(BIN) ./cmd/weir

# What measures and simulates weir; it is not released.
lab: build
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -o $(LAB) ./cmd/weir-lab

# Five nodes, a publisher, and viewers until the first node is full. It stays
# until interrupted, or for DEMO_SECONDS. Over https, so that browsers of other
# machines' names would get a camera too; it says how to trust its CA.
demo: build
	$(BIN) testnet demo --tls

# Who should hold the servers' state: the comparison, about twenty minutes on a
# machine that has nothing else to do. DISCOVERY_FLAGS can shorten it.
bench-discovery: lab
	@testnet/deps.sh redis-server
	$(LAB) bench discovery --out testnet/results $(DISCOVERY_FLAGS)

# What forwarding costs, on a CPU of its own. FORWARD_FLAGS choose the viewers
# and the servers to compare with.
bench-forward: lab
	$(LAB) bench forward --out testnet/results $(FORWARD_FLAGS)

# Placement in networks too large to run, simulated: about half an hour.
# SIM_FLAGS can shorten it.
sim: lab
	$(LAB) sim --out testnet/results $(SIM_FLAGS)

# What is released, in dist: packages, archives, SBOM and checksums, for ARCHS.
release:
	cmd/weir/deploy/release.sh

# The container image localhost/weir, for this machine, with what there is of
# docker, podman and buildah.
image:
	ARCHS=$$($(GO) env GOHOSTARCH) cmd/weir/deploy/release.sh
	@tool=$$(for t in docker podman buildah; do command -v $$t && break; done) || { echo "make image needs docker, podman or buildah (Debian: apt-get install buildah)"; exit 1; }; \
	$$tool build $$([ "$${tool##*/}" = docker ] || echo --format docker) --build-arg TARGETARCH=$$($(GO) env GOHOSTARCH) --tag localhost/weir:latest dist/image

# $(call try,PACKAGES,FLAGS) is go test, without its cache. Of up to six tests
# that fail each is run once more by itself, and named at the end: one that
# passes then met a busy machine, or is to be mended.
define try
@again=$$(mktemp); trap 'rm -f "$$again"' EXIT; \
$(GO) tool gotestsum --format pkgname --format-hide-empty-pkg --rerun-fails=1 --rerun-fails-max-failures=6 --rerun-fails-report="$$again" --packages="$(1)" -- -count=1 $(2); \
code=$$?; [ ! -s "$$again" ] || { echo "Tests that were run again (runs, failures):"; cat "$$again"; }; exit $$code
endef

# The packages whose tests run whole networks, browsers and tools; the others;
# and those with tests that measure time, whose names end in Timed.
WHOLE  = $(shell $(GO) list ./testnet/e2e ./testnet/browser ./testnet/lab ./testnet/deploy ./cmd/weir)
UNITS  = $(filter-out $(WHOLE),$(shell $(GO) list ./...))
TIMED  = $(shell git grep -lE '^func Test[A-Za-z0-9]*Timed\b' -- '*_test.go' | xargs -rn1 dirname | sort -u | sed 's|^|./|')
UNTIMED = -skip 'Timed$$' -timeout 30m

# All tests, each part also if another one failed. Those that measure time come
# last, one at a time, with nothing beside them. For the units alone, without
# these: go test -short ./...
test: deps build
	@$(MAKE) --no-print-directory --keep-going test-units test-whole test-timed

# Side by side: they wait most of the time.
test-units:
	$(call try,$(UNITS),$(UNTIMED))

test-whole:
	$(call try,$(WHOLE),$(UNTIMED) -p 1)

test-timed:
	$(call try,$(TIMED),-run 'Timed$$' -p 1 -parallel 1 -timeout 30m)

race:
	$(call try,./...,-race -short $(UNTIMED))

# Every fuzz target for FUZZTIME, each package built once. On a busy machine the
# fuzzer itself may not end in time, and says only "context deadline exceeded"
# without a failing input; such a target is run once more.
fuzz:
	@set -eo pipefail; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	for pkg in $$(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do \
		$(GO) test -c -fuzz . -o "$$dir/test" "./$$pkg"; \
		for target in $$(cd "$$pkg" && "$$dir/test" -test.list '^Fuzz'); do \
			echo "$$pkg $$target"; \
			fuzz() { (cd "$$pkg" && "$$dir/test" -test.run '^$$' -test.fuzz "^$$target$$" -test.fuzztime $(FUZZTIME) -test.parallel 2 -test.fuzzcachedir "$$dir/corpus" > "$$dir/out" 2>&1); }; \
			late() { grep -qx '    context deadline exceeded' "$$dir/out" && ! grep -q 'Failing input' "$$dir/out"; }; \
			fuzz || { late && echo "again: the fuzzer did not end in time" && fuzz; } || { cat "$$dir/out"; exit 1; }; \
			grep -v 'elapsed:' "$$dir/out"; \
		done; \
	done

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on the files above"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck -checks 'inherit,ST1016,ST1019,ST1020,ST1021,ST1022' ./...

# What the tests need beyond Go.
deps:
	@testnet/deps.sh
	@testnet/deps.sh firefox-esr
	@testnet/deps.sh redis-server
	@testnet/deps.sh jq
	@testnet/deps.sh nftables
	@testnet/deps.sh promtool
	@testnet/deps.sh prometheus
	@testnet/deps.sh mandoc
	@testnet/deps.sh python3-gst-1.0
	@testnet/deps.sh nginx
	@testnet/deps.sh haproxy
	@testnet/deps.sh libnss3-tools
	@testnet/deps.sh ffmpeg
	@testnet/deps.sh podman
	@testnet/deps.sh runc
	@testnet/deps.sh docker-compose
	@testnet/deps.sh systemd

# The command references, made of the help texts and kept in the repository.
docs: lab
	$(BIN) docs markdown > .github/docs/commands.md
	$(LAB) docs markdown > .github/docs/lab.md
	$(BIN) config example > cmd/weir/deploy/weir.yaml

# The man pages, in dist/man. Their date is that of the last commit.
man: build
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} $(BIN) docs man dist/man

# Generated code, kept in the repository: needs protoc.
proto:
	$(GO) build -o bin/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
	protoc --plugin=bin/protoc-gen-go --go_out=. --go_opt=module=weir $$(git ls-files '*.proto')

# The test clip, kept in the repository: needs ffmpeg and DejaVu fonts.
clip:
	sfu/client/clip/generate.sh
