package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weir/capacity/event"
)

// The operator's view of a node that fills, redirects a client and is told to
// end sessions: by commands and in its log, with nodes by their names.
func TestOperatorSeesWhatHappens(t *testing.T) {
	t.Parallel()
	w := up(t, 3, only(1, "--session-limit", "3"))
	a, b := w.n(1), w.n(2)
	at := func(n node, args ...string) []string { return append(args, "--admin", n.Admin) }

	pub := publish(t, a.HTTP+"/whip/demo")
	one, two := view(t, a.HTTP+"/whep/demo"), view(t, a.HTTP+"/whep/demo")
	three := view(t, a.HTTP+"/whep/demo") // redirected to another node
	host := b
	if strings.HasPrefix(three.Stats().URL, w.n(3).HTTP) {
		host = w.n(3)
	}
	_, _ = one, two

	// Names, in tables and events.
	says(t, reads(t, at(a, "status")...), "n1  "+a.PeerID.String())
	says(t, reads(t, at(a, "peers")...), "n2", "n3")
	eventually(t, "its record says that it is full", func() bool {
		return strings.Contains(reads(t, at(a, "records", "list")...), "full")
	})
	says(t, reads(t, at(a, "records", "list")...), "n1", "n2", "n3")
	says(t, reads(t, at(a, "records", "get", host.Name)...), host.PeerID.String())
	says(t, reads(t, at(a, "decisions")...), "view", "demo", host.Name)
	says(t, reads(t, at(a, "decisions", "--explain")...), "SCORE", "asked "+host.Name+" to reserve: granted")
	says(t, reads(t, at(a, "ping", host.Name, "--count", "2")...), host.Name+": ", "2 pings, 2 answered; min/avg/max")
	fails(t, badInput, []string{"nowhere", "weir peers"}, at(a, "ping", "nowhere")...)
	fails(t, badInput, []string{"the node itself"}, at(a, "ping", "n1")...)

	eventually(t, "the node tells that it is full", func() bool {
		return strings.Contains(cli(t, at(a, "events")...).out, "node is full: 3 of 3 sessions")
	})
	out := reads(t, at(a, "events")...)
	says(t, out, "publisher session opened: demo", "viewer session opened: demo", "client redirected: demo, "+host.Name, "cascade link opened: "+host.Name)
	var full event.Event
	if err := json.Unmarshal([]byte(reads(t, at(a, "events", "--json", "--kind", "node.full")...)), &full); err != nil || full.Reason != "sessions" || full.Seq == 0 {
		t.Errorf("node.full is told as %+v, %v", full, err)
	}
	if out := reads(t, at(a, "events", "--kind", "node,peer")...); strings.Contains(out, "viewer session opened") {
		t.Errorf("--kind node,peer lets through: %s", out)
	}
	fails(t, badInput, []string{"--kind noed", "did you mean node"}, at(a, "events", "--kind", "noed")...)
	fails(t, badInput, []string{"since=yesterday", "10m"}, at(a, "events", "--since", "yesterday")...)

	// Sessions, and their ends.
	type session struct {
		ID, Kind string
		From     string `json:"redirected_from"`
		Bitrate  int64
	}
	sessions := func(n node) (list []session) {
		if err := json.Unmarshal([]byte(reads(t, at(n, "sessions", "--json")...)), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	eventually(t, "every session has a bitrate", func() bool {
		list := sessions(a)
		return len(list) == 3 && list[0].Bitrate > 0 && list[1].Bitrate > 0 && list[2].Bitrate > 0
	})
	if list := sessions(host); len(list) != 1 || list[0].From != a.PeerID.String() {
		t.Errorf("the session of the client that was sent on: %+v, want it to name %s", list, a.PeerID)
	}
	says(t, reads(t, at(host, "sessions")...), "viewer", "n1")
	viewer := sessions(a)[1]
	says(t, reads(t, at(a, "sessions", "end", viewer.ID[:8])...), viewer.ID, "demo")
	fails(t, badInput, []string{viewer.ID[:8], "weir sessions"}, at(a, "sessions", "end", viewer.ID[:8])...)
	fails(t, badInput, []string{"not published at this node", "pulls it from n1"}, at(host, "streams", "end", "demo")...)
	fails(t, badInput, []string{`"nothing"`, "weir streams list"}, at(a, "streams", "end", "nothing")...)
	says(t, reads(t, at(a, "streams", "end", "demo")...), "demo")
	eventually(t, "all sessions have ended with the stream", func() bool { return len(sessions(a)) == 0 && len(sessions(host)) == 0 })
	pub.stop()
	eventually(t, "the node tells that it has room again", func() bool {
		return strings.Contains(cli(t, at(a, "events")...).out, "node has room again")
	})

	// The log: two lines per session, names besides IDs, and no ticket.
	log, err := os.ReadFile(filepath.Join(w.Dir(), "n1", "log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`msg="publisher session opened" stream=demo`, `msg="viewer session opened"`, `msg="client redirected" stream=demo peer=` + host.Name + " peer_id=" + host.PeerID.String(),
		`msg="node is full" reason=sessions`, `msg="cascade link opened" peer=` + host.Name, `detail="ended by the operator"`, `msg="node has room again"`} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the log of n1 lacks %s:\n%s", want, log)
		}
	}
	if n := strings.Count(string(log), "session="+viewer.ID); n != 2 {
		t.Errorf("%d lines on one session, want 2:\n%s", n, log)
	}
	for _, node := range w.Nodes() {
		b, err := os.ReadFile(node.Log)
		if err != nil || strings.Contains(string(b), "ticket=") && !strings.Contains(string(b), "ticket=…") {
			t.Errorf("a ticket in the log of %s, or %v", node.Name, err)
		}
	}
}
