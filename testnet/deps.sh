#!/usr/bin/env bash
# Installs what the tests need beyond Go: Chromium, for the browser tests.
# Debian or Ubuntu, as root or with sudo; elsewhere it says what is missing.
set -euo pipefail

command -v chromium >/dev/null 2>&1 && exit 0

missing() {
	echo "The browser tests need chromium, and it could not be installed here: $1." >&2
	echo "Install it by hand (Debian: apt-get install chromium), then try again," >&2
	echo "or leave the tests with real processes and browsers out: go test -short ./..." >&2
	exit 1
}

command -v apt-get >/dev/null 2>&1 || missing "there is no apt-get"
sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null 2>&1 || missing "neither root nor sudo"
	sudo=sudo
fi
echo "Installing chromium for the browser tests …"
$sudo apt-get update -qq || missing "apt-get update failed"
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null || missing "apt-get install failed"
