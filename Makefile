SHELL := /bin/bash
GO    ?= go
BIN   := bin/weir

.PHONY: build test race fuzz lint

build:
	$(GO) build -trimpath -o $(BIN) ./cmd/weir

test: build
	$(GO) test ./...

race:
	$(GO) test -race ./...

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on the files above"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
