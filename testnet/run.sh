#!/bin/sh
# Builds weir if need be and runs weir testnet: testnet/run.sh up -n 5,
# then status, kill NODE, down; or demo.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
make -s -C "$root" build
exec "$root/bin/weir" testnet "$@"
