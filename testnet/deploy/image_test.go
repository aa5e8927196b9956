package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// containers is a shell whose podman, and through it docker-compose, has its
// own storage of images and containers.
func containers(t *testing.T, dir string) shell {
	t.Helper()
	needs(t, "podman", "runc", "docker-compose")
	scratch := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(scratch, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// A container cannot have higher limits than this process.
	limit := func(name string, resource int, want uint64) string {
		var l syscall.Rlimit
		if err := syscall.Getrlimit(resource, &l); err != nil {
			t.Fatal(err)
		}
		most := min(l.Max, want)
		return fmt.Sprintf("%q", fmt.Sprintf("%s=%d:%d", name, most, most))
	}
	const rlimitNPROC = 6
	t.Setenv("CONTAINERS_CONF", write("containers.conf", fmt.Sprintf(`[containers]
default_ulimits = [%s, %s]
pids_limit = 0
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
`, limit("nofile", syscall.RLIMIT_NOFILE, 16384), limit("nproc", rlimitNPROC, 1000))))
	t.Setenv("CONTAINERS_STORAGE_CONF", write("storage.conf", fmt.Sprintf(`[storage]
driver = "vfs"
graphroot = "%s/storage"
runroot = "%s/run"
`, scratch, scratch)))
	socket := filepath.Join(scratch, "podman.sock")
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	s := newShell(t, dir)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := s.try("for c in $(podman ps -aq); do podman inspect --format '{{.Name}} {{.State.Status}} {{.State.ExitCode}}' $c; podman logs $c 2>&1 | tail -20; done")
			t.Logf("the containers: %s", out)
		}
		if out, err := s.try("podman rm --force --all --time 0 && podman rmi --force --all"); err != nil {
			t.Logf("containers not removed: %v: %s", err, out)
		}
	})
	s.run(fmt.Sprintf("podman build --isolation chroot --format docker --build-arg TARGETARCH=%s --tag localhost/weir:latest %s/image", runtime.GOARCH, built))
	service, err := s.Start("podman system service --time 0 unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = service.Stop() })
	eventually(t, "podman's service listens", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	return s
}

// The image holds the binary and nothing useful to an attacker; it runs without
// root and writes only to its volume; it reports missing settings, its health
// and its CPUs, and keeps its identity.
func TestImage(t *testing.T) {
	s := containers(t, t.TempDir())
	s.run("podman create --name content localhost/weir:latest")
	files := strings.Fields(s.run("podman export content | tar -t"))
	slices.Sort(files)
	if want := []string{"LICENSE", "THIRD-PARTY-LICENSES.txt", "data/", "weir"}; !slices.Equal(files, want) {
		t.Errorf("the image has %q, want %q", files, want)
	}

	const base = "podman run --read-only --cap-drop ALL --security-opt no-new-privileges --network host "
	out, err := s.try(base + "localhost/weir:latest")
	if exit := new(exec.ExitError); !asExit(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("without a word on who may come in: %v", err)
	}
	says(t, out, "--insecure-open")
	const open = base + "--env WEIR_INSECURE_OPEN=true --env WEIR_PUBLIC_IP=10.77.0.1 "
	out, err = s.try(open + "--env WEIR_DATA_DIR=/elsewhere localhost/weir:latest")
	if err == nil {
		t.Error("it writes outside of its volume")
	}
	says(t, out, "read-only file system")

	s.run(open + "--detach --name node --cpus 0.5 localhost/weir:latest")
	well := func() bool { _, err := s.try("podman healthcheck run node"); return err == nil }
	eventually(t, "it is well", well)
	type status struct {
		PeerID string `json:"peer_id"`
		Record struct {
			Cores   float64
			Packets struct{ Limit int64 }
		}
	}
	ask := func() (st status) {
		t.Helper()
		if err := json.Unmarshal([]byte(s.run("podman exec node /weir status --json")), &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	before := ask()
	if before.Record.Cores != 0.5 || before.Record.Packets.Limit != 25_000 {
		t.Errorf("with half a core it counts on %v, and %d packets/s", before.Record.Cores, before.Record.Packets.Limit)
	}
	if user := strings.TrimSpace(s.run("podman top node huser | tail -1")); user != "65532" {
		t.Errorf("it runs as %q", user)
	}

	s.run("podman kill --signal STOP node")
	if out, err := s.try("podman healthcheck run node"); err == nil {
		t.Errorf("while it is stopped it is well: %s", out)
	}
	s.run("podman kill --signal CONT node")
	eventually(t, "it is well again", well)

	s.run("podman stop --time 30 node")
	if code := strings.TrimSpace(s.run("podman inspect --format '{{.State.ExitCode}}' node")); code != "0" {
		t.Errorf("told to end, it exits with %s", code)
	}
	s.run("podman start node")
	eventually(t, "it is well after a restart", well)
	if after := ask(); after.PeerID != before.PeerID {
		t.Errorf("it comes back as %s, and was %s", after.PeerID, before.PeerID)
	}
}

// asExit reports whether a command ran and exited with a code other than 0.
func asExit(err error, to **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	*to = e
	return ok
}

// headCommands are the commands in the comment at the head of an artefact.
func headCommands(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(artefact(name))
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(b), "\n\n")
	var list []string
	for _, m := range regexp.MustCompile(`(?m)^#   (\S.*)$`).FindAllStringSubmatch(head, -1) {
		list = append(list, m[1])
	}
	return list
}

// The three nodes of the compose file, started as its head says, form one
// network that admits clients with a token. One is killed: its viewer continues
// at another node, the other viewers are not affected, and it comes back with
// the same identity.
func TestCompose(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "three")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(artefact("compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	s := containers(t, dir)
	if out, err := s.try("docker-compose config"); err == nil || !strings.Contains(out, "the address at which clients") {
		t.Errorf("without WEIR_IP: %v, %s", err, out)
	}
	commands := headCommands(t, "compose.yaml")
	if len(commands) != 3 {
		t.Fatalf("its head tells to run %q", commands)
	}
	for _, line := range commands {
		s.run(line)
	}
	const up = "WEIR_IP=10.77.0.1 docker-compose up -d"
	says(t, string(b), "docker compose up -d")
	s.run(up)
	t.Cleanup(func() { _, _ = s.try("WEIR_IP=10.77.0.1 docker-compose down --volumes --timeout 1") })

	admins := map[string]string{"a": "127.0.0.1:8081", "b": "127.0.0.1:8181", "c": "127.0.0.1:8281"}
	met := func(name string, want int) {
		t.Helper()
		eventually(t, name+" meets the others", func() bool {
			out, err := s.try("weir peers --json --admin " + admins[name])
			var peers []json.RawMessage
			return err == nil && json.Unmarshal([]byte(out), &peers) == nil && len(peers) == want
		})
	}
	for name := range admins {
		met(name, 2)
	}
	type status struct {
		PeerID              string `json:"peer_id"`
		Publishers, Viewers int
	}
	ask := func(name string) (st status) {
		out, err := s.try("weir status --json --admin " + admins[name])
		if err != nil || json.Unmarshal([]byte(out), &st) != nil {
			t.Logf("%s: %v: %s", name, err, out)
		}
		return st
	}
	if out, err := s.try("weir view --duration 1s http://10.77.0.1:8180/whep/demo"); err == nil || !strings.Contains(out, "token") {
		t.Errorf("without a token: %v, %s", err, out)
	}
	token := strings.TrimSpace(s.run("weir token new --key signing-key.json --network compose --publish --view demo"))
	publisher := s.start("weir publish --pattern --token "+token+" http://10.77.0.1:8080/whip/demo", "kbit/s")
	stays := s.start("weir view --wait 20s --token "+token+" http://10.77.0.1:8280/whep/demo", "kbit/s")
	moves := s.start("weir view --wait 20s --token "+token+" http://10.77.0.1:8180/whep/demo http://10.77.0.1:8280/whep/demo", "kbit/s")
	was := ask("b")
	if was.Viewers != 1 || ask("c").Viewers != 1 {
		t.Fatalf("viewers are at b: %+v, and c: %+v", was, ask("c"))
	}

	s.run("podman kill --signal KILL $(podman ps -q --filter name=three_b_1)")
	eventually(t, "the viewer of the node that was killed is at another", func() bool { return ask("c").Viewers == 2 })
	goesOn(t, "the viewer that was moved", moves)
	goesOn(t, "the viewer elsewhere", stays)
	goesOn(t, "the publisher", publisher)

	s.run(up)
	met("b", 2)
	if now := ask("b"); now.PeerID != was.PeerID {
		t.Errorf("it comes back as %s, and was %s", now.PeerID, was.PeerID)
	}
	s.start("weir view --wait 20s --token "+token+" http://10.77.0.1:8180/whep/demo", "kbit/s")
}
