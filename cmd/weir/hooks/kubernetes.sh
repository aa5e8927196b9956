#!/bin/sh
# Starts a weir node as a Kubernetes pod when nobody has room, and deletes it when
# it is released. Needs kubectl and jq.
#
#   weir node … --provision-command cmd/weir/hooks/kubernetes.sh
#
# The node that provisions needs a service account that may create and delete
# pods in NAMESPACE. IMAGE is an image whose entry point is weir. A pod uses its
# machine's network: media is UDP, and clients must reach it.
set -eu

namespace=${NAMESPACE:-weir}
image=${IMAGE:-weir}

input=$(cat)
field() { printf %s "$input" | jq -er "$1"; }

case $(field .action) in
provision)
	field '.join | strings' >/dev/null
	field '.request | strings' >/dev/null
	# The request is the name: tried again, it is the same pod. Regions are
	# zones of the cluster; an empty one is any.
	printf %s "$input" | jq --arg image "$image" '{
		apiVersion: "v1", kind: "Pod",
		metadata: {name: ("weir-" + (.request | ascii_downcase)), labels: {app: "weir", region: .region}},
		spec: {
			hostNetwork: true, restartPolicy: "Never",
			nodeSelector: (if .region == "" then {} else {"topology.kubernetes.io/zone": .region} end),
			containers: [{
				name: "weir", image: $image,
				env: [
					{name: "WEIR_JOIN", value: .join}, {name: "WEIR_REGION", value: .region},
					{name: "HOST", valueFrom: {fieldRef: {fieldPath: "status.hostIP"}}}
				],
				args: ["node", "--insecure-open", "--http", "$(HOST):0", "--admin", "127.0.0.1:0", "--media-port", "0",
					"--listen", "/ip4/$(HOST)/udp/0/quic-v1", "--data-dir", "/tmp/weir", "--release-command", "true"]
			}]
		}
	}' | kubectl --namespace "$namespace" apply -f -
	;;
release)
	# With --release-command true the pod ends by itself. This is for a hook that
	# runs elsewhere and is told of a pod labelled with its peer ID.
	kubectl --namespace "$namespace" delete pod --wait=false --ignore-not-found \
		--selector "app=weir,peer=$(field .peer_id)"
	;;
*)
	echo "unknown action" >&2
	exit 1
	;;
esac
