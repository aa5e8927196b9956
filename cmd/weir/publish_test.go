package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/cmd/weir/api"
	"weir/cmd/weir/cmdline"
	"weir/sfu/client"
)

// asWeir makes the test's executable the weir command.
const asWeir = "WEIR_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asWeir) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runWeir runs the command in a process of its own, because the flag library
// has state that two commands may not share, and returns its output and exit
// code. The end of ctx interrupts it.
func runWeir(ctx context.Context, args ...string) (stdout string, code int, err error) {
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asWeir+"=1")
	cmd.Stdout, cmd.Stderr = &out, &complaint
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code, err = exit.ExitCode(), errors.New(strings.TrimSpace(complaint.String()))
	} else if errors.Is(err, context.Canceled) {
		err = nil // it ended normally after the interrupt
	}
	return out.String(), code, err
}

// startNode runs a node of its own network and returns its addresses.
func startNode(t *testing.T, flags ...string) api.Ready {
	t.Helper()
	dir := t.TempDir()
	ready := filepath.Join(dir, "ready.json")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, _, err := runWeir(ctx, append([]string{"node", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--media-port", "0",
			"--data-dir", dir, "--ready-file", ready, "--log-level", "error"}, flags...)...)
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("node: %v", err)
		}
	})
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(20 * time.Second)
	for {
		if b, err := os.ReadFile(ready); err == nil {
			var info api.Ready
			if err := json.Unmarshal(b, &info); err != nil {
				t.Fatal(err)
			}
			return info
		}
		select {
		case <-poll.C:
		case err := <-ended:
			ended <- err
			t.Fatalf("node ended: %v", err)
		case <-deadline:
			t.Fatal("node not ready within 20 s")
		}
	}
}

func TestPublishAndView(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	node := startNode(t).HTTP
	published := make(chan string, 1)
	publishing, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		out, code, err := runWeir(publishing, "publish", node+"/whip/demo", "--pattern", "--duration", "1m", "--interval", "500ms", "--json")
		if code != 0 {
			t.Errorf("publish: exit %d: %v\n%s", code, err, out)
		}
		published <- out
	}()

	file := filepath.Join(t.TempDir(), "out.ivf")
	// There may be no publisher yet: use --wait.
	out, code, err := runWeir(t.Context(), "view", "--duration", "2s", "--interval", "500ms", "--wait", "5s", "--save", file, node+"/whep/demo")
	if code != 0 {
		t.Errorf("view: exit %d: %v", code, err)
	}
	for _, want := range []string{"viewing " + node + "/whep/demo: answer after", "kbit/s", "frames/s", " 0 lost", "latency p50", "first frame after"} {
		if !strings.Contains(out, want) {
			t.Errorf("view prints no %q:\n%s", want, out)
		}
	}
	if s, err := client.Open(file); err != nil || s.Length() < time.Second {
		t.Errorf("saved video: %v", err)
	}

	out, code, err = runWeir(t.Context(), "view", "--tracks", "audio", "--duration", "1s", "--json", node+"/whep/demo")
	if code != 0 {
		t.Errorf("view of audio: exit %d: %v", code, err)
	}
	if last := lastLine(t, out); last["final"] != true || len(last["tracks"].([]any)) != 1 || last["packets"].(float64) < 20 {
		t.Errorf("view of audio ends with %v", last)
	}

	stop()
	out = <-published
	last := lastLine(t, out)
	if last["final"] != true || last["acked"] != true || last["frames"].(float64) < 60 || last["url"] != node+"/whip/demo" {
		t.Errorf("publish ends with %v", last)
	}
	if lines := strings.Count(out, "\n"); lines < 5 || strings.Count(out, `{"final":false`) != lines-1 {
		t.Errorf("%d lines of JSON:\n%s", lines, out)
	}
}

func lastLine(t *testing.T, out string) (object map[string]any) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &object); err != nil {
		t.Fatalf("last line: %v\n%s", err, out)
	}
	return object
}

func TestMediaExitCodes(t *testing.T) {
	full := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no node has room: sessions", http.StatusServiceUnavailable)
	}))
	defer full.Close()
	wrong := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
	}))
	defer wrong.Close()
	bad := filepath.Join(t.TempDir(), "bad.ivf")
	if err := os.WriteFile(bad, []byte("DKIF and then nothing of use, not even a codec"), 0o600); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"publish", "--pattern", full.URL}, cmdline.ExitRefused, "publish: refused by " + full.URL + `: 503 Service Unavailable: "no node has room: sessions"`},
		{[]string{"view", full.URL}, cmdline.ExitRefused, "view: refused by"},
		{[]string{"view", wrong.URL}, cmdline.ExitFailure, "bad answer"},
		{[]string{"publish", "--pattern", "http://127.0.0.1:1/whip/a"}, cmdline.ExitConnection, "no connection"},
		{[]string{"view", "http://127.0.0.1:1/whep/a"}, cmdline.ExitConnection, "no connection"},
		{[]string{"view", "127.0.0.1:1/whep/a"}, cmdline.ExitConnection, "no connection to 127.0.0.1:1: nothing listens there"},
		{[]string{"view", "demo"}, cmdline.ExitInput, "not an http or https URL"},
		{[]string{"view"}, cmdline.ExitInput, "a URL is expected"},
		{[]string{"view", "a.ivf", full.URL}, cmdline.ExitInput, "URLs are expected, not a.ivf"},
		{[]string{"view", "http://127.0.0.1:1/whep/a", full.URL, full.URL}, cmdline.ExitRefused, "no node has room"},
		{[]string{"view", "--tracks", "smell", full.URL}, cmdline.ExitInput, `"smell"; expected audio, video`},
		{[]string{"view", "--interval", "0s", full.URL}, cmdline.ExitInput, "--interval must be positive"},
		{[]string{"view", "--interval", "soon", full.URL}, cmdline.ExitInput, "soon"},
		{[]string{"view", "--save", filepath.Join(bad, "out.ivf"), full.URL}, cmdline.ExitInput, "record: open"},
		{[]string{"publish", full.URL}, cmdline.ExitInput, "nothing to send"},
		{[]string{"publish", "--pattern", bad, full.URL}, cmdline.ExitInput, "both --pattern and files"},
		{[]string{"publish", bad, full.URL}, cmdline.ExitInput, bad + ": IVF"},
		{[]string{"publish", filepath.Join(t.TempDir(), "absent.ivf"), full.URL}, cmdline.ExitInput, "no such file"},
	} {
		_, code, err := runWeir(t.Context(), c.args...)
		if err == nil || code != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("weir %s: exit %d: %v\nwant %d and %q", strings.Join(c.args, " "), code, err, c.code, c.text)
		}
	}

	out, _, _ := runWeir(t.Context(), "view", "--json", full.URL)
	if last := lastLine(t, out); last["final"] != true || last["code"] != float64(cmdline.ExitRefused) || !strings.Contains(last["error"].(string), "no node has room") {
		t.Errorf("with --json: %v", last)
	}
}
