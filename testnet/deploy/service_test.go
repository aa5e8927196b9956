package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// machine boots a systemd in a container, over an overlay of this machine's
// files whose changes are discarded at the end. It returns a function that runs
// a command there.
func machine(t *testing.T) (run func(line string) (string, error)) {
	t.Helper()
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		t.Fatalf("there is no systemd to boot: %v: make deps installs what the tests need", err)
	}
	s := containers(t, t.TempDir())
	dir := t.TempDir()
	const overlay = `set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
rm -rf "$1/root/usr/sbin/policy-rc.d" "$1/root"/etc/dpkg/dpkg.cfg.d/*
mount -t tmpfs tmpfs "$1/root/run"
mount -t tmpfs tmpfs "$1/root/tmp"`
	t.Cleanup(func() { _ = exec.Command("umount", "--recursive", "--lazy", dir).Run() })
	if out, err := exec.Command("sh", "-c", overlay, "sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.run(fmt.Sprintf("podman run --detach --name machine --systemd=always --network host --volume %s:/dist:ro --rootfs %s/root /lib/systemd/systemd --unit=basic.target", built, dir))
	t.Cleanup(func() { _, _ = s.try("podman rm --force --time 0 machine") })
	run = func(line string) (string, error) {
		return s.try("podman exec --env LC_ALL=C.UTF-8 machine sh -c '" + line + "'")
	}
	eventually(t, "it has booted", func() bool {
		out, _ := run("systemctl is-system-running")
		return strings.Contains(out, "running") || strings.Contains(out, "degraded")
	})
	return run
}

// The package's service under a real systemd: it starts at installation, is
// restarted when it is stuck, is not disturbed by a reload, stays down after a
// drain, and is not retried with a wrong setting.
func TestService(t *testing.T) {
	try := machine(t)
	run := func(line string) string {
		t.Helper()
		out, err := try(line)
		if err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		return out
	}
	show := func(property string) string {
		t.Helper()
		return strings.TrimSpace(run("systemctl show weir --value --property " + property))
	}
	run("dpkg --no-triggers -i /dist/weir_*.deb")
	if state := show("ActiveState"); state != "active" {
		t.Fatalf("installed, it is %s: %s", state, run("systemctl status weir --no-pager --full || true"))
	}
	run("weir healthcheck --ready")
	if user := strings.TrimSpace(run("stat -c %U /proc/$(systemctl show weir --value --property MainPID)")); user != "weir" {
		t.Errorf("it runs as %q", user)
	}
	says(t, run("systemctl status weir --no-pager --full"), "active: 0 publishers, 0 viewers")

	pid := show("MainPID")
	run("systemctl reload weir")
	run("weir healthcheck --ready")
	if now := show("MainPID"); now != pid {
		t.Errorf("a reload makes of process %s process %s", pid, now)
	}

	run(`mkdir -p /etc/systemd/system/weir.service.d && printf "[Service]\nWatchdogSec=5s\n" >/etc/systemd/system/weir.service.d/test.conf && systemctl daemon-reload && systemctl restart weir`)
	pid = show("MainPID")
	restarts := show("NRestarts")
	run("kill -STOP " + pid)
	eventually(t, "a node that is stuck is started anew", func() bool {
		// After SIGABRT the old process exists for a moment longer.
		if now := show("MainPID"); now == pid || now == "0" {
			return false
		}
		_, err := try("weir healthcheck --ready")
		return err == nil
	})
	was, _ := strconv.Atoi(restarts)
	if now := show("NRestarts"); now != strconv.Itoa(was+1) {
		t.Errorf("systemd has started it anew %s times, and %s before", now, restarts)
	}

	run("weir drain --exit")
	eventually(t, "a node that was drained is down", func() bool { return show("ActiveState") == "inactive" })
	if status := show("ExecMainStatus"); status != "0" {
		t.Errorf("drained, it ended with %s", status)
	}
	run("echo WEIR_LOG_LEVEL=loud >>/etc/weir/weir.env")
	if out, err := try("systemctl start weir"); err == nil {
		t.Errorf("with a wrong setting it starts: %s", out)
	}
	if state, status := show("ActiveState"), show("ExecMainStatus"); state != "failed" || status != "3" {
		t.Errorf("with a wrong setting it is %s, with status %s", state, status)
	}

	run("sed -i /loud/d /etc/weir/weir.env && systemctl reset-failed weir && systemctl start weir && weir healthcheck --ready")
	run("dpkg --no-triggers -r weir")
	eventually(t, "it ends when the package is removed", func() bool {
		out, _ := try("systemctl is-active weir")
		return !strings.HasPrefix(out, "active") && !strings.HasPrefix(out, "deactivating")
	})
}
