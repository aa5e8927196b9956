#!/usr/bin/env bash
# Installs what is needed beyond Go: Chromium, for the browser tests; called with
# firefox-esr, that, for the same; with redis-server, that, for the comparison
# with a database; with jq, that, for the example hooks; with nftables, that, for
# networks with a NAT; with promtool or prometheus, those, for the tests of
# the metrics and the dashboard; with mandoc, that, for the test of the man pages; with
# nginx or haproxy, that, for the test of reverse proxies; with libnss3-tools,
# that, for the test of pages over https; with ffmpeg, that, for the hook that
# records and the recipes; with python3-gst-1.0, that and GStreamer's plugins, for
# the recipes; with podman, runc, docker-compose or systemd, that, for the tests of
# what weir is deployed with. Debian or Ubuntu, as root or with sudo; elsewhere it
# says what is missing.
set -euo pipefail

package=${1:-chromium}
packages=("$package")
tool=$package
case $package in
chromium)
	what="The browser tests need"
	without="leave the tests with real processes and browsers out: go test -short ./..."
	;;
redis-server)
	what="The comparison with a database needs"
	without="leave it out: bin/weir-lab bench discovery --modes kademlia,broker-1,broker-3,pull,push"
	;;
nftables)
	tool=nft
	what="The tests of NATs and firewalls need"
	without="leave it out: they are skipped without it"
	;;
firefox-esr)
	what="The browser tests need"
	without="leave the tests with real processes and browsers out: go test -short ./..."
	;;
ffmpeg)
	what="The test of the hook that records needs"
	without="leave it out: it is skipped without it"
	;;
nginx | haproxy)
	what="The test of reverse proxies needs"
	without="leave it out: it is skipped without it"
	;;
libnss3-tools)
	tool=certutil
	what="The test of pages over https needs"
	without="leave the tests with real processes and browsers out: go test -short ./..."
	;;
podman | runc | docker-compose | systemd)
	[ "$package" != systemd ] || tool=systemd-analyze
	what="The tests of images, packages and units need"
	without="leave the tests that start processes out: go test -short ./..."
	;;
python3-gst-1.0)
	packages+=(gir1.2-gst-plugins-bad-1.0 gstreamer1.0-plugins-{good,bad,ugly} gstreamer1.0-nice gstreamer1.0-tools)
	what="The test of the recipes needs"
	without="leave the tests that start processes out: go test -short ./..."
	dpkg -s "${packages[@]}" >/dev/null 2>&1 && exit 0
	tool=
	;;
jq)
	what="The tests of the example hooks need"
	without="leave the tests that start processes out: go test -short ./..."
	;;
mandoc)
	what="The test of the man pages needs"
	without="leave it out: it is skipped without it"
	;;
promtool)
	what="The test of the metrics needs"
	without="leave the tests that start processes out: go test -short ./..."
	;;
prometheus)
	what="The test of the dashboard needs"
	without="leave the tests that start processes out: go test -short ./..."
	;;
*)
	echo "deps.sh: nothing is known of $package; there are chromium, firefox-esr, redis-server, jq, nftables, promtool, prometheus, mandoc, nginx, haproxy, libnss3-tools, ffmpeg, podman, runc, docker-compose, systemd and python3-gst-1.0" >&2
	exit 3
	;;
esac
[ -n "$tool" ] && command -v "$tool" >/dev/null 2>&1 && exit 0

missing() {
	echo "$what $package, and it could not be installed here: $1." >&2
	echo "Install it by hand (Debian: apt-get install ${package/promtool/prometheus}), then try again," >&2
	echo "or $without" >&2
	exit 1
}

command -v apt-get >/dev/null 2>&1 || missing "there is no apt-get"
sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null 2>&1 || missing "neither root nor sudo"
	sudo=sudo
fi
echo "Installing $package …"
$sudo apt-get update -qq || missing "apt-get update failed"
if [ "$package" = nginx ]; then
	# Its package would have an nginx run on this machine, on port 80: only the
	# program is taken out of it.
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	(cd "$dir" && apt-get -o APT::Sandbox::User=root download -qq nginx) || missing "apt-get download failed"
	dpkg-deb -x "$dir"/nginx_*.deb "$dir/out" || missing "the package could not be unpacked"
	$sudo install -m 0755 "$dir/out/usr/sbin/nginx" /usr/local/sbin/nginx || missing "it could not be copied to /usr/local/sbin"
	exit 0
fi
if [ "$package" = promtool ] || [ "$package" = prometheus ]; then
	# Their package would have a Prometheus run on this machine: only the programs
	# are taken out of it.
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	(cd "$dir" && apt-get -o APT::Sandbox::User=root download -qq prometheus) || missing "apt-get download failed"
	dpkg-deb -x "$dir"/prometheus_*.deb "$dir/out" || missing "the package could not be unpacked"
	$sudo install -m 0755 "$dir/out/usr/bin/$package" "/usr/local/bin/$package" || missing "it could not be copied to /usr/local/bin"
	exit 0
fi
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null || missing "apt-get install failed"
