package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weir/capacity/event"
	"weir/cmd/weir/hook"
)

func TestHookFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--provision-command", "a", "--provision-url", "http://b"}, "give one of them"},
		{[]string{"--release-url", "b.example"}, "--release-url b.example: want http"},
		{[]string{"--provision-url", "ftp://b"}, "want http"},
		{[]string{"--hook-timeout", "0s"}, "--hook-timeout"},
		{[]string{"--provision-region", "eu"}, "give --provision-command"},
		{[]string{"--provision-command", "a", "--provision-region", strings.Repeat("x", 33)}, "at most 32 bytes"},
	} {
		if _, err := parse(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
	cfg, err := parse(t, "--provision-command", "a", "--region", "eu", "--release-url", "https://b")
	if err != nil || len(cfg.provisionRegions) != 1 || cfg.provisionRegions[0] != "eu" || !cfg.provision.Given() || !cfg.release.Given() {
		t.Errorf("%v, %+v", err, cfg)
	}
	if cfg, err = parse(t, "--provision-command", "a", "--provision-region", "us", "--provision-region", "eu", "--provision-region", "us"); err != nil || fmt.Sprint(cfg.provisionRegions) != "[eu us]" {
		t.Errorf("%v, %v", err, cfg.provisionRegions)
	}
}

func TestEventFlags(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	for path, text := range map[string]string{key: "a key of many bytes", key + ".short": "short", key + ".none": "# nothing\n", key + ".bad": "whsec_!!"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--event-command", "a", "--event-url", "http://b"}, "--event-command and --event-url: give one"},
		{[]string{"--event-url", "b.example"}, "--event-url b.example: want http"},
		{[]string{"--event-kinds", "session"}, "--event-kinds: give --event-command"},
		{[]string{"--event-command", "a", "--event-kinds", "sesion.opened"}, "--event-kinds sesion.opened: there are no such events"},
		{[]string{"--event-command", "a", "--event-key", key}, "--event-key signs what is posted"},
		{[]string{"--event-url", "http://b", "--event-key", key + ".gone"}, "no such file"},
		{[]string{"--event-url", "http://b", "--event-key", key + ".short"}, "line 1: a key of 5 bytes"},
		{[]string{"--event-url", "http://b", "--event-key", key + ".none"}, "no key in it"},
		{[]string{"--event-url", "http://b", "--event-key", key + ".bad"}, "not base64"},
	} {
		if _, err := parse(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
	cfg, err := parse(t, "--event-url", "http://b", "--event-key", key, "--event-kinds", "stream, session.opened")
	if err != nil || len(cfg.eventKinds) != 6 || !cfg.eventKinds[event.StreamEnded] || !cfg.eventKinds[event.SessionOpened] || cfg.eventKeys == nil {
		t.Errorf("%v, %v", err, cfg.eventKinds)
	}
	if cfg, err = parse(t, "--event-command", "a"); err != nil || len(cfg.eventKinds) != len(hook.DefaultEventKinds) {
		t.Errorf("%v, %v", err, cfg.eventKinds)
	}
	if cfg, err = parse(t, "--event-command", "a", "--event-kinds", "all"); err != nil || len(cfg.eventKinds) != len(event.List()) {
		t.Errorf("%v, %v", err, cfg.eventKinds)
	}
}
