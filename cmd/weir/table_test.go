package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/mattn/go-runewidth"

	"weir/capacity"
	"weir/dht"
)

func tableText(t terminal, head string, rows ...[]any) string {
	var b bytes.Buffer
	t.Writer = &b
	table(t, head, func(row func(...any)) {
		for _, r := range rows {
			row(r...)
		}
	})
	return b.String()
}

func TestTableFitsTheTerminal(t *testing.T) {
	head := "NODE\tSTATE\t…WHY\tREGION\tURL"
	row := []any{"n1", capacity.Full, "9 of 10 sessions are in use, and none of them is about to end", "eu", "http://192.0.2.1:8080"}
	for _, c := range []struct {
		width int
		want  string
	}{
		{0, "NODE  STATE  WHY                                                            REGION  URL\n" +
			"n1    full   9 of 10 sessions are in use, and none of them is about to end  eu      http://192.0.2.1:8080\n"},
		{80, "NODE  STATE  WHY                                   REGION  URL\n" +
			"n1    full   9 of 10 sessions are in use, and no…  eu      http://192.0.2.1:8080\n"},
		{50, "NODE  STATE  WHY                            REGION\n" +
			"n1    full   9 of 10 sessions are in use,…  eu\n" +
			"(1 column left out: --wide shows all)\n"},
		{10, "NODE  WHY\n" +
			"n1    9 of 10…\n" +
			"(3 columns left out: --wide shows all)\n"},
	} {
		if got := tableText(terminal{width: c.width}, head, row); got != c.want {
			t.Errorf("at %d columns:\n%s\nwant:\n%s", c.width, got, c.want)
		}
	}
}

// Of any table nothing may be wider than the terminal, whatever is in it, as
// long as the first column and some of the free text fit.
func TestNoLineIsWiderThanTheTerminal(t *testing.T) {
	for width := 40; width < 130; width++ {
		for _, head := range []string{"A\tB\tC\tD", "A\t…B\tC\tD", "A\tB\tC\t…D"} {
			text := tableText(terminal{width: width}, head,
				[]any{"n1", strings.Repeat("long ", 9), "日本語の名前", strings.Repeat("x", 40)},
				[]any{"a-node-of-some-length", 1, 2, "y"})
			for line := range strings.Lines(text) {
				if w := runewidth.StringWidth(strings.TrimSuffix(line, "\n")); w > width {
					t.Fatalf("%q has %d columns, at most %d", line, w, width)
				}
			}
		}
	}
}

func TestColoursOnATerminalOnly(t *testing.T) {
	if got := tableText(terminal{}, "STATE", []any{stateOf(capacity.Full)}); strings.Contains(got, "\x1b") {
		t.Errorf("a file gets %q", got)
	}
	if got := tableText(terminal{color: true}, "STATE", []any{stateOf(capacity.Full)}); !strings.Contains(got, "\x1b[31mfull\x1b[0m") {
		t.Errorf("a terminal gets %q", got)
	}
}

// Holders' and other nodes' words reach the terminal in cells, and must neither
// steer it nor look like other rows.
func TestWordsOfPeersCannotSteerTheTerminal(t *testing.T) {
	evil := "x\x1b]0;owned\a\x1b[2J\r\nbest is n9\t\u202e\u009b31m"
	d := dht.Decision{
		Answer: dht.Answer{
			Rejected: map[string]int{evil: 1},
			Asked:    []dht.Asked{{Holder: peer.ID("h"), Err: evil}},
		},
		Need:     dht.DecisionNeed{Stream: evil, Region: evil},
		Refused:  evil,
		Verdicts: []dht.Judged{{Node: peer.ID("a"), Region: evil, Rule: evil, URL: evil}, {Node: peer.ID("b"), Terms: []capacity.TermScore{{Name: evil}}, URL: evil}},
	}
	record := &capacity.Record{Node: peer.ID("a"), Region: evil, URL: evil, Name: evil}
	stream := streamEntry{Stream: evil, Tracks: []string{evil}, Carriers: []carrierEntry{{Node: peer.ID("a"), Name: evil, URL: evil, Origin: true}}}
	for name, print := range map[string]func(w terminal){
		"select --explain": func(w terminal) { _ = printDecision(w, d, newNames(map[peer.ID]string{"a": evil}), true) },
		"records list":     func(w terminal) { printRecords(w, []recordEntry{{Record: record, Node: "a"}, {Error: evil}}) },
		"records list copies": func(w terminal) {
			printCopies(w, []recordEntry{{Error: evil}, {Record: record, Copies: []recordCopy{{Topic: dht.Topic(evil)}}}})
		},
		"streams tree": func(w terminal) { printTree(w, stream) },
		"doctor":       func(w terminal) { printDiagnosis(w, diagnosis{Checks: []dht.Check{{Name: "x", Seen: evil, Do: evil}}}) },
		"status":       func(w terminal) { printStatus(w, status{Region: evil, Name: evil}, nil, newNames(nil)) },
	} {
		var b bytes.Buffer
		print(terminal{Writer: &b})
		for _, c := range b.String() {
			if c != '\n' && unprintable(c) {
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
	printTree(terminal{Writer: &b}, streamEntry{Stream: "demo", Viewers: 1, Carriers: []carrierEntry{{Node: "a", Viewers: 1, Origin: true}}})
	if strings.Contains(b.String(), "1 viewers") {
		t.Error(b.String())
	}
	b.Reset()
	printStatus(terminal{Writer: &b}, status{Peers: 1, Publishers: 1, Viewers: 1, Links: 1, Holds: 1, Leases: 1, Record: capacity.Record{Cores: 1}}, nil, newNames(nil))
	for _, wrong := range []string{"1 peers", "1 records", "1 publishers", "1 viewers", "1 leases", "1 cascade links", "1 cores", "1.0 cores"} {
		if strings.Contains(b.String(), wrong) {
			t.Errorf("status says %q:\n%s", wrong, &b)
		}
	}
}
