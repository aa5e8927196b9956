package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A compromised service can do little: systemd rates its exposure at no more
// than 2.0 of 10.
func TestUnitIsHardened(t *testing.T) {
	needs(t, "systemd-analyze")
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", artefact("weir.service")).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	overall := regexp.MustCompile(`Overall exposure level for weir\.service: (\d+\.\d)`).FindStringSubmatch(string(out))
	if overall == nil {
		t.Fatalf("systemd-analyze says %s", out)
	}
	t.Logf("exposure %s", overall[1])
}

// A place is an overlay over this machine's files, whose changes are discarded
// at the end, with a network of its own, and no running systemd. The script
// finds the package at /tmp/weir.deb.
func place(t *testing.T, script string) (string, error) {
	t.Helper()
	needs(t, "unshare", "chroot", "dpkg", "ip")
	dir := t.TempDir()
	const enter = `set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs tmpfs "$1/root/run"
mount -t tmpfs tmpfs "$1/root/tmp"
cp "$2" "$1/root/tmp/weir.deb"
ip link set lo up
ip link add weir0 type veth peer name weir1
ip link set weir0 up
ip link set weir1 up
ip addr add 10.77.0.1/24 dev weir0
exec chroot "$1/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 sh -ec "$3"`
	out, err := exec.Command("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount", "--propagation", "private", "--", "sh", "-c", enter, "sh", dir, one(t, ".deb"), script).CombinedOutput()
	return string(out), err
}

// The package installs, keeps an administrator's changes when it is installed
// again, leaves no file but the identity behind when it is purged, and its unit
// is valid where it is installed.
func TestPackage(t *testing.T) {
	out, err := place(t, `
rm -f /etc/dpkg/dpkg.cfg.d/* # containers leave documentation out
exec 2>&1
step() { echo "== $*"; }
step installed
dpkg --no-triggers -i /tmp/weir.deb
weir version
id -un weir
stat -c '%U:%G %a %n' /etc/weir /etc/weir/weir.env /usr/bin/weir /lib/systemd/system/weir.service
readlink -e /etc/systemd/system/multi-user.target.wants/weir.service
dpkg-query -W -f '${Conffiles}\n' weir
step verified
systemd-analyze --man=no verify /lib/systemd/system/weir.service || echo "verify: $?"
test -s /usr/share/doc/weir/copyright
test -s /usr/share/doc/weir/operating.md
zcat /usr/share/man/man1/weir-node.1.gz | grep -q WEIR_STOP_TIMEOUT
bash -n /usr/share/bash-completion/completions/weir
step again
echo WEIR_REGION=eu >>/etc/weir/weir.env
rm /etc/systemd/system/multi-user.target.wants/weir.service # systemctl disable
dpkg --no-triggers -i /tmp/weir.deb
tail -1 /etc/weir/weir.env
if [ -e /etc/systemd/system/multi-user.target.wants/weir.service ]; then echo enabled; else echo disabled; fi
step removed
mkdir -p /var/lib/weir && echo key >/var/lib/weir/identity.key
dpkg --no-triggers -r weir
test ! -e /usr/bin/weir
tail -1 /etc/weir/weir.env
step purged
dpkg --no-triggers -P weir
test ! -e /etc/weir
cat /var/lib/weir/identity.key
find /etc /usr/bin /usr/lib/sysusers.d /usr/share/doc /usr/share/man /usr/share/bash-completion /lib/systemd /var/lib/systemd -name 'weir*'
`)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	parts := map[string]string{}
	for _, p := range strings.Split("\n"+out, "\n== ")[1:] {
		name, text, _ := strings.Cut(p, "\n")
		parts[name] = text
	}
	says(t, parts["installed"], ", go1.", "\nweir\n", "root:weir 750 /etc/weir\n", "root:root 640 /etc/weir/weir.env\n",
		"root:root 755 /usr/bin/weir\n", "/lib/systemd/system/weir.service\n", " /etc/weir/weir.env ")
	if s := strings.TrimSpace(parts["verified"]); s != "" {
		t.Errorf("systemd-analyze verify: %s", s)
	}
	says(t, parts["again"], "\nWEIR_REGION=eu\ndisabled")
	says(t, parts["removed"], "\nWEIR_REGION=eu")
	says(t, parts["purged"], "the node's identity stays in /var/lib/weir")
	if !strings.HasSuffix(strings.TrimSpace(parts["purged"]), "\nkey") {
		t.Error("it leaves files behind, or took the identity with it")
	}
	if t.Failed() {
		t.Log(out)
	}
}

// The unit's command becomes ready, answers health checks, and has its state
// where the unit says; the settings proposed by the package exist.
func TestUnitRunsTheNode(t *testing.T) {
	b, err := os.ReadFile(artefact("weir.service"))
	if err != nil {
		t.Fatal(err)
	}
	unit := string(b)
	start := regexp.MustCompile(`(?m)^ExecStart=/usr/bin/(weir .*)$`).FindStringSubmatch(unit)
	if start == nil {
		t.Fatal("the unit starts no weir")
	}
	needs(t, "ip")
	s := newShell(t, t.TempDir())
	state := t.TempDir()
	env := strings.ReplaceAll(strings.Join(settings(t, unit), " "), "%S", state)
	node := s.start(fmt.Sprintf("env %s %s", env, start[1]), "node is ready")
	if _, err := os.Stat(filepath.Join(state, "weir")); err != nil {
		t.Errorf("its state is not where the unit says: %v", err)
	}
	s.run("weir healthcheck --ready")
	if err := node.Stop(); err != nil {
		t.Error(err)
	}
	for _, line := range strings.Split(settingsFile(t), "\n") {
		if v, ok := strings.CutPrefix(line, "#WEIR_"); ok {
			name, _, _ := strings.Cut(v, "=")
			if out := s.run("weir node --help"); !strings.Contains(out, "$WEIR_"+name) {
				t.Errorf("weir.env names WEIR_%s, which weir node does not have", name)
			}
		}
	}
}

// settings are the settings in Environment= of a unit.
func settings(t *testing.T, unit string) (list []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^Environment=(.*)$`).FindAllStringSubmatch(unit, -1) {
		list = append(list, m[1])
	}
	if len(list) == 0 {
		t.Fatal("the unit sets nothing")
	}
	return list
}

func settingsFile(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(artefact("weir.env"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
