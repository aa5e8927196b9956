package main

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/capacity"
	"weir/cmd/weir/hook"
)

// provisionInput is the input of a hook that starts a server.
const hookedID = "12D3KooWHJBy88w5VomhCLk2J5V3Vqwx7hzhHfxfrTQTfoXa2YH9"

var provisionInput = hook.Input{
	Action: "provision", Region: "eu", Reason: "sessions", Join: "token", Request: "r1", Network: "open",
	Need: &hook.Need{Purpose: capacity.View, Uplink: 2_500_000, Packets: 300, Stream: "demo"},
}

// The example hooks are run with stubs in place of the tools; the stubs record
// their arguments.
func TestExampleHooks(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	if _, err := exec.LookPath("jq"); err != nil {
		t.Skip("the examples need jq")
	}
	release := hook.Input{Action: "release", Region: "eu", Reason: "idle", Request: "R2", Network: "open", PeerID: "12D3"}
	if err := release.PeerID.UnmarshalText([]byte(hookedID)); err != nil {
		t.Fatal(err)
	}
	evil := provisionInput
	evil.Region, evil.Request = `e"u'$(touch oops)`, "R3"
	for _, c := range []struct {
		script, tool string
		in           hook.Input
		want         []string
	}{
		{"docker.sh", "docker", provisionInput, []string{"run", "--name", "weir-r1", "WEIR_JOIN=token", "WEIR_REGION=eu", "node"}},
		{"docker.sh", "docker", evil, []string{"weir-r3", "WEIR_REGION=" + evil.Region}},
		{"docker.sh", "docker", release, []string{"label=weir.peer=" + hookedID, "stop", "some-id"}},
		{"kubernetes.sh", "kubectl", provisionInput, []string{"--namespace", "weir", "apply", `"name": "weir-r1"`, `"value": "token"`, `"topology.kubernetes.io/zone": "eu"`, `"--http"`}},
		{"kubernetes.sh", "kubectl", release, []string{"delete", "app=weir,peer=" + hookedID}},
		{"aws.sh", "aws", provisionInput, []string{"run-instances", "LaunchTemplateName=weir", "--client-token", "r1", "--region", "eu", "WEIR_JOIN='token'", "shutdown -h now"}},
		{"aws.sh", "aws", evil, []string{"--region", evil.Region, "WEIR_REGION='eutouchoops'"}},
		{"aws.sh", "aws", release, []string{"Name=tag:weir-peer,Values=" + hookedID, "terminate-instances", "some-id"}},
	} {
		t.Run(c.script+" "+c.in.Action+" "+c.in.Request, func(t *testing.T) {
			script, err := filepath.Abs(filepath.Join("hooks", c.script))
			if err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("sh", "-n", script).CombinedOutput(); err != nil {
				t.Fatalf("sh -n: %v: %s", err, out)
			}
			dir := t.TempDir()
			log := filepath.Join(dir, "calls")
			// The stub records its arguments, a file that an argument names,
			// and its input, and answers a query with an ID.
			stub := `#!/bin/sh
for a in "$@"; do
	printf '%s\n' "$a" >>"$CALLS"
	case $a in file://*) cat "${a#file://}" >>"$CALLS" ;; esac
	case $a in -) cat >>"$CALLS" ;; esac
	case $a in ps | describe-instances) echo some-id ;; esac
done
`
			if err := os.WriteFile(filepath.Join(dir, c.tool), []byte(stub), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			t.Setenv("CALLS", log)
			t.Chdir(dir)
			h, err := hook.New("provision", script, "", 10*time.Second, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Run(t.Context(), c.in); err != nil {
				t.Errorf("run = %v", err)
			}
			calls, err := os.ReadFile(log)
			if err != nil {
				t.Fatalf("%s was not called: %v", c.tool, err)
			}
			for _, want := range c.want {
				if !strings.Contains(string(calls), want) {
					t.Errorf("no %q in what %s was called with:\n%s", want, c.tool, calls)
				}
			}
			if _, err := os.Stat(filepath.Join(dir, "oops")); err == nil {
				t.Error("a region was run as a command")
			}
		})
	}
}

// Input that is not a hook's JSON is an error, and no tool is called.
func TestExampleHooksRefuseGarbage(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	scripts, err := filepath.Glob("hooks/*.sh")
	if err != nil || len(scripts) != 4 {
		t.Fatalf("%v, %v", scripts, err)
	}
	for _, script := range scripts {
		for _, in := range []string{"", "hello", "{}", `{"action":"dance"}`, `{"action":"provision","region":"eu"}`} {
			cmd := exec.Command("sh", script)
			dir := t.TempDir()
			for _, tool := range []string{"docker", "kubectl", "aws", "weir", "ffmpeg"} {
				if err := os.WriteFile(filepath.Join(dir, tool), []byte("#!/bin/sh\ntouch "+dir+"/called\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			cmd.Stdin = strings.NewReader(in)
			if cmd.Run() == nil {
				t.Errorf("%s takes %q", script, in)
			}
			if _, err := os.Stat(filepath.Join(dir, "called")); err == nil {
				t.Errorf("%s calls its tool for %q", script, in)
			}
		}
	}
}
