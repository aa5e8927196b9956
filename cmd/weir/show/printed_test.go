package show

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/cmd/weir/api"
	"weir/cmd/weir/doctor"
	"weir/cmd/weir/names"
	"weir/cmd/weir/term"
	"weir/dht"
)

// Text from holders and other nodes is printed in cells, and must neither
// control the terminal nor look like other rows.
func TestWordsOfPeersCannotSteerTheTerminal(t *testing.T) {
	evil := "x\x1b]0;owned\a\x1b[2J\r\nbest is n9\t\u202e\u009b31m"
	d := dht.Decision{
		Answer: dht.Answer{
			Rejected: map[string]int{evil: 1},
			Asked:    []dht.Asked{{Holder: peer.ID("h"), Err: evil}},
		},
		Need:     dht.DecisionNeed{Stream: evil, Region: evil},
		Refused:  evil,
		Verdicts: []dht.Evaluation{{Node: peer.ID("a"), Region: evil, Rule: evil, URL: evil}, {Node: peer.ID("b"), Terms: []policy.TermScore{{Name: evil}}, URL: evil}},
	}
	record := &capacity.Record{Node: peer.ID("a"), Region: evil, URL: evil, Name: evil}
	stream := api.Stream{Stream: evil, Tracks: []string{evil}, Carriers: []api.Carrier{{Node: peer.ID("a"), Name: evil, URL: evil, Origin: true}}}
	for name, print := range map[string]func(w term.Terminal){
		"select --explain": func(w term.Terminal) { _ = printDecision(w, d, names.New(map[peer.ID]string{"a": evil}), true) },
		"records list":     func(w term.Terminal) { PrintRecords(w, []api.Record{{Record: record, Node: "a"}, {Error: evil}}) },
		"records list copies": func(w term.Terminal) {
			printCopies(w, []api.Record{{Error: evil}, {Record: record, Copies: []api.RecordCopy{{Topic: dht.Topic(evil)}}}})
		},
		"streams tree": func(w term.Terminal) { PrintTree(w, stream) },
		"doctor": func(w term.Terminal) {
			doctor.Print(w, doctor.Diagnosis{Checks: []doctor.Check{{Name: "x", Seen: evil, Do: evil}}})
		},
		"status": func(w term.Terminal) { printStatus(w, api.Status{Region: evil, Name: evil}, nil, names.New(nil)) },
	} {
		var b bytes.Buffer
		print(term.Terminal{Writer: &b})
		for _, c := range b.String() {
			if c != '\n' && !unicode.IsPrint(c) {
				t.Errorf("%s: %q reaches the terminal", name, c)
			}
		}
		for line := range strings.Lines(b.String()) {
			if strings.HasPrefix(line, "best is n9") {
				t.Errorf("%s: a peer's word makes a line of its own", name)
			}
		}
	}
}

func TestSingularAndPlural(t *testing.T) {
	var b bytes.Buffer
	PrintTree(term.Terminal{Writer: &b}, api.Stream{Stream: "demo", Viewers: 1, Carriers: []api.Carrier{{Node: "a", Viewers: 1, Origin: true}}})
	if strings.Contains(b.String(), "1 viewers") {
		t.Error(b.String())
	}
	b.Reset()
	printStatus(term.Terminal{Writer: &b}, api.Status{Peers: 1, Publishers: 1, Viewers: 1, Links: 1, Holds: 1, Leases: 1, Record: capacity.Record{Cores: 1}}, nil, names.New(nil))
	for _, wrong := range []string{"1 peers", "1 records", "1 publishers", "1 viewers", "1 leases", "1 cascade links", "1 cores", "1.0 cores"} {
		if strings.Contains(b.String(), wrong) {
			t.Errorf("status says %q:\n%s", wrong, &b)
		}
	}
}
