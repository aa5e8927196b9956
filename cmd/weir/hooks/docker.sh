#!/bin/sh
# Starts a weir node in a container when nobody has room, and takes it away when
# it is released. Needs docker and jq.
#
#   weir node … --provision-command cmd/weir/hooks/docker.sh
#
# podman works too: set DOCKER=podman. IMAGE is an image whose entry point is
# weir. The container uses the host's network, for media is UDP on any port.
#
# What the hook is given, and prints, is described in .github/docs/placement.md.
set -eu

docker=${DOCKER:-docker}
image=${IMAGE:-weir}
address=${ADDRESS:-127.0.0.1}

input=$(cat)
field() { printf %s "$input" | jq -er "$1"; }

case $(field .action) in
provision)
	# The request is the name: tried again, it is the same container.
	request=$(field .request)
	join=$(field .join)
	name=weir-$(printf %s "$request" | tr 'A-Z' 'a-z')
	region=$(printf %s "$input" | jq -r .region)
	"$docker" run --detach --rm --network host --name "$name" \
		--env WEIR_JOIN="$join" --env WEIR_REGION="$region" \
		--label weir.region="$region" \
		"$image" node --insecure-open --http "$address:0" --admin 127.0.0.1:0 --media-port 0 \
		--listen "/ip4/$address/udp/0/quic-v1" --listen "/ip4/$address/tcp/0" \
		--data-dir /tmp/weir --release-command true
	;;
release)
	# With --release-command true the process ends by itself, and --rm does the
	# rest. This is for a hook that runs outside of the container.
	"$docker" ps --quiet --filter "label=weir.peer=$(field .peer_id)" | while read -r id; do
		"$docker" stop "$id"
	done
	;;
*)
	echo "unknown action" >&2
	exit 1
	;;
esac
