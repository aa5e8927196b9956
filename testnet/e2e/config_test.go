package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"weir/capacity"
	"weir/sfu/problem"
	"weir/testnet/printed"
)

// configFile is a node's configuration; set replaces it as editors do.
type configFile struct {
	t    *testing.T
	path string
}

func newConfigFile(t *testing.T, text string) *configFile {
	c := &configFile{t, filepath.Join(t.TempDir(), "weir.yaml")}
	c.set(text)
	return c
}

func (c *configFile) set(text string) {
	c.t.Helper()
	if err := os.WriteFile(c.path+"~", []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(c.path+"~", c.path); err != nil {
		c.t.Fatal(err)
	}
}

// claims is the record of a node as published by itself.
func (n node) claims(t *testing.T) capacity.Record {
	t.Helper()
	return ask[struct{ Record capacity.Record }](t, n, "/status").Record
}

// At SIGHUP a node applies its file, and connected clients are not affected; a
// file with a mistake changes nothing. The service manager is notified when it
// is done.
func TestReload(t *testing.T) {
	t.Parallel()
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(t.TempDir(), "notify")})
	if err != nil {
		t.Fatal(err)
	}
	heard := &syncBuffer{}
	var listening sync.WaitGroup
	listening.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := manager.Read(b)
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(heard, "%s\n", b[:n])
		}
	})
	t.Cleanup(func() {
		_ = manager.Close()
		listening.Wait()
	})

	c := newConfigFile(t, "overflow: refuse\nsession-limit: 10\n")
	p := runNode(t, []string{"NOTIFY_SOCKET=" + manager.LocalAddr().String()}, append(nodeArgs(t)[1:], "--config", c.path)...)
	n := node{p.Node}
	pub := publish(t, n.whip("demo"))
	viewer := view(t, n.whep("demo"))

	c.set("overflow: refuse\nsession-limit: 2\nregion: eu\nlog-level: debug\n")
	p.signal(t, syscall.SIGHUP)
	eventually(t, "the limit is in force", func() bool { return n.claims(t).Sessions.Limit == 2 })
	eventually(t, "the log tells of it", func() bool {
		return strings.Contains(p.log.String(), "changed: session-limit, log-level; needs a restart: region")
	})
	if _, err := tryView(t, n.whep("demo")); err == nil {
		t.Error("a third session gets in")
	} else if got := refusal(t, err); got.Code != problem.NoCapacity {
		t.Errorf("a third session is refused by %q", got.Code)
	}
	flows(t, viewer)
	eventually(t, "the service manager hears that it is done", func() bool {
		_, after, reloading := strings.Cut(heard.String(), "RELOADING=1\nMONOTONIC_USEC=")
		return reloading && strings.Contains(after, "READY=1")
	})

	c.set("overflow: refuse\nsession-limit: 10\nregoin: eu\n")
	p.signal(t, syscall.SIGHUP)
	eventually(t, "the log tells of the mistake", func() bool {
		return strings.Contains(p.log.String(), "weir.yaml:3:1: there is no setting") && strings.Contains(p.log.String(), "configuration not applied")
	})
	if got := n.claims(t).Sessions.Limit; got != 2 {
		t.Errorf("%d sessions are allowed by a file with a mistake", got)
	}
	if got := n.metric(t, "weir_config_last_reload_successful"); got != 0 {
		t.Errorf("successful: %v", got)
	}
	flows(t, viewer)
	select {
	case <-pub.Done():
		t.Error("the publisher is gone")
	default:
	}
}

// A reload before a node is ready does not end it.
func TestReloadAtOnce(t *testing.T) {
	t.Parallel()
	c := newConfigFile(t, "session-limit: 10\n")
	p := runNode(t, nil, append(nodeArgs(t)[1:], "--config", c.path)...)
	for range 20 { // more than the channel buffers
		p.signal(t, syscall.SIGHUP)
	}
	c.set("session-limit: 3\n")
	p.signal(t, syscall.SIGHUP)
	eventually(t, "the last one counts", func() bool { return (node{p.Node}).claims(t).Sessions.Limit == 3 })

	// Without a file a reload changes and ends nothing.
	p = runNode(t, nil, nodeArgs(t)[1:]...)
	p.signal(t, syscall.SIGHUP)
	eventually(t, "it says so", func() bool { return strings.Contains(p.log.String(), "no setting has changed") })
}

// The operator's guide on the file is correct as printed.
func TestConfigurationGuide(t *testing.T) {
	t.Parallel()
	guide := operating(t, "Configuration file")
	dir := t.TempDir()
	path := filepath.Join(dir, "weir.yaml")
	text := block(t, guide, "yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	shell, err := printed.NewShell(weir, dir, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shell.Close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	job, err := shell.Start("weir node --config weir.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = job.Stop() })
	if err := job.Await(ctx, "node is ready"); err != nil {
		t.Fatal(err)
	}
	out, err := shell.Run(ctx, "weir status --json")
	var s struct{ Record capacity.Record }
	if err != nil || json.Unmarshal([]byte(out), &s) != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r := s.Record; r.Sessions.Limit != 200 || r.Uplink.Limit != 800_000_000 || r.Region != "eu" {
		t.Errorf("the guide's file gives %+v", r)
	}
	changed := strings.NewReplacer("session-limit: 200", "session-limit: 100", "region: eu", "region: us").Replace(text)
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, block := range strings.Split(guide, "```")[1:] {
		for line := range strings.Lines(block) {
			line, isPrompt := strings.CutPrefix(strings.TrimSpace(line), "$ ")
			if !strings.HasPrefix(line, "weir ") {
				continue
			}
			ran++
			out, err := shell.Run(ctx, line)
			if err != nil {
				t.Errorf("%s: %v: %s", line, err, out)
			}
			if isPrompt {
				_, says, _ := strings.Cut(block, line+"\n")
				if strings.TrimSpace(out) != strings.TrimSpace(says) {
					t.Errorf("%s says %q, the guide %q", line, out, says)
				}
			}
		}
	}
	if ran < 4 {
		t.Errorf("found %d commands in the guide", ran)
	}
}
