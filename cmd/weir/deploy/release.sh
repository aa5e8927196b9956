#!/usr/bin/env bash
# Builds what is released, for each of $ARCHS, from the commit that is checked out:
# the same commit gives the same bytes in any directory. In $OUT (dist):
#
#   weir_VERSION_linux_ARCH.tar.gz    binary, licences, unit, man pages, examples
#   weir_VERSION_ARCH.deb             the same as a package
#   weir_VERSION_linux_ARCH.cdx.json  what it is made of (CycloneDX)
#   SHA256SUMS
#   image/                            what the Dockerfile is built from
#
# Needs Go and git, and GNU tar.
set -euo pipefail
cd "$(dirname "$0")/../../.."

OUT=${OUT:-dist}
ARCHS=${ARCHS:-amd64 arm64}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
DEPLOY=$PWD/cmd/weir/deploy
MOST=44000000 # bytes of the binary; the aim is 40 MB
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The tools are those of this machine, at the versions of their own go.mod.
go build -C "$DEPLOY/tools" -trimpath -buildvcs=false -o "$work/bin/" ./licences github.com/goreleaser/nfpm/v2/cmd/nfpm github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod

# Nothing of this machine, its Go settings and its C compiler gets in.
build() { # ARCH FILE
	CGO_ENABLED=0 GOOS=linux GOARCH=$1 GOAMD64=v1 GOARM64=v8.0 GOFLAGS= GOEXPERIMENT= GOWORK=off \
		go build -trimpath -buildvcs=auto -ldflags='-s -w -buildid=' -o "$2" ./cmd/weir
}

rm -rf "$OUT/image"
mkdir -p "$OUT/image/data"
for ARCH in $ARCHS; do
	STAGE=$work/$ARCH
	mkdir -p "$STAGE/man"
	build "$ARCH" "$STAGE/weir"
	size=$(stat -c %s "$STAGE/weir")
	[ "$size" -le "$MOST" ] || { echo "weir for $ARCH has $size bytes, more than $MOST: what does it link now?" >&2; exit 1; }
	VERSION=$(go version -m "$STAGE/weir" | awk '$1 == "mod" { print $3 }')
	VERSION=${VERSION#v}
	[ "$VERSION" != "(devel)" ] || VERSION=0.0.0-$(git log -1 --format=%cd-%h --date=format:%Y%m%d%H%M%S --abbrev=12)
	name=weir_${VERSION}_linux_$ARCH

	# Man pages and completion come from a binary that runs here; it is the same
	# source.
	if [ ! -e "$work/host" ]; then
		if [ "$ARCH" = "$(go env GOHOSTARCH)" ]; then cp "$STAGE/weir" "$work/host"; else build "$(go env GOHOSTARCH)" "$work/host"; fi
	fi
	"$work/host" docs man "$STAGE/man"
	gzip -9n "$STAGE"/man/*
	"$work/host" completion bash >"$STAGE/completion.bash"

	"$work/bin/licences" "$STAGE/weir" >"$STAGE/THIRD-PARTY-LICENSES.txt"
	cp LICENSE .github/docs/operating.md "$STAGE/"
	{ echo "weir is under the Apache License 2.0:"; echo; cat LICENSE; echo; cat "$STAGE/THIRD-PARTY-LICENSES.txt"; } >"$STAGE/copyright"
	"$work/bin/cyclonedx-gomod" bin -json -std -noserial -licenses -version "v$VERSION" -output "$OUT/$name.cdx.json" "$STAGE/weir" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }

	at=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
	sed -i "s/\"timestamp\": \"[^\"]*\"/\"timestamp\": \"$at\"/" "$OUT/$name.cdx.json"

	export ARCH STAGE
	(cd "$DEPLOY" && VERSION=${VERSION//-/\~} "$work/bin/nfpm" package --config nfpm.yaml --packager deb --target "$OUT/weir_${VERSION}_$ARCH.deb" >"$work/log" 2>&1) || { cat "$work/log" >&2; exit 1; }

	tree=$work/tree/weir_$VERSION
	rm -rf "$work/tree"
	mkdir -p "$tree/deploy"
	cp -r "$STAGE/weir" "$STAGE/LICENSE" "$STAGE/THIRD-PARTY-LICENSES.txt" "$STAGE/operating.md" "$STAGE/completion.bash" "$STAGE/man" "$tree/"
	for f in Dockerfile compose.yaml kubernetes.yaml weir.service weir.sysusers weir.env grafana.json prometheus-rules.yaml; do
		[ ! -e "$DEPLOY/$f" ] || cp "$DEPLOY/$f" "$tree/deploy/"
	done
	tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u+rwX,go+rX,go-w --format=posix \
		--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime -C "$work/tree" -cf - "weir_$VERSION" | gzip -9n >"$OUT/$name.tar.gz"

	cp "$STAGE/weir" "$OUT/image/weir-linux-$ARCH"
	cp LICENSE "$STAGE/THIRD-PARTY-LICENSES.txt" "$DEPLOY/Dockerfile" "$OUT/image/"
done
cd "$OUT"
sha256sum weir_* >SHA256SUMS
cat SHA256SUMS
