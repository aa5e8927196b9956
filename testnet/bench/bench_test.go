package bench

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestCheckTellsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want string // in the error; "" for none
	}{
		"everything has a default":       {Config{}, ""},
		"two nodes leave none to choose": {Config{Nodes: []int{5, 2}}, "3 to 100"},
		"a thousand do not fit":          {Config{Nodes: []int{1000}}, "3 to 100"},
		"no sample is no measurement":    {Config{Samples: -1}, "at least 1"},
		"time does not run backwards":    {Config{Hop: -time.Second}, "not negative"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.cfg.Check()
			if c.want == "" && err != nil {
				t.Errorf("Check = %v", err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Check = %v, want it to say %q", err, c.want)
			}
		})
	}
}

func TestProtocolName(t *testing.T) {
	for id, want := range map[string]string{
		"/weir/0123456789abcdef/records/1": "records/1",
		"/weir/0123456789abcdef/kad/1.0.0": "kad/1.0.0",
		"/ipfs/id/1.0.0":                   "ipfs/id/1.0.0",
		"":                                 "negotiation",
	} {
		if got := protocolName(id); got != want {
			t.Errorf("protocolName(%q) = %q, want %q", id, got, want)
		}
	}
}

// The smallest run measures everything once, with real nodes.
func TestCascade(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes and waits for links to be let go")
	}
	defer goleak.VerifyNone(t)
	binary := filepath.Join(t.TempDir(), "weir")
	if out, err := exec.Command("go", "build", "-o", binary, "weir/cmd/weir").CombinedOutput(); err != nil {
		t.Fatalf("build weir: %v\n%s", err, out)
	}
	report, err := Cascade(t.Context(), Config{
		Binary: binary, Dir: t.TempDir(), Nodes: []int{3}, Samples: 2, Hop: time.Second, Idle: time.Second, Sessions: 8,
	})
	if err != nil {
		t.Fatal(err)
	}
	n := report.Networks[0]
	for _, f := range n.FirstFrame {
		if f.Total.N != 2 || f.Total.Min <= 0 || f.Total.Min < f.Beyond.Min || f.Answer.Min <= 0 || f.Connect.Min <= 0 {
			t.Errorf("first frame %s: %+v", f.Case, f)
		}
	}
	if len(n.FirstFrame) != 4 {
		t.Errorf("%d cases of a first frame, want 4", len(n.FirstFrame))
	}
	if n.Hop == nil || n.Hop.Added.N < 20 || n.Hop.Added.P50 > 1000 {
		t.Errorf("hop: %+v", n.Hop)
	}
	for _, s := range n.Selections {
		if s.Messages.N != 2 || s.Messages.Min < 2 || s.Bytes.Min < 100 {
			t.Errorf("selection for a %s: %+v", s.Client, s)
		}
	}
	if len(n.Selections) != 2 {
		t.Errorf("selections for %d kinds of client, want 2", len(n.Selections))
	}
	if n.Age.N < 4 || n.Age.Min < 0 || n.Age.Max > 60_000 {
		t.Errorf("record age: %+v", n.Age)
	}
	if s := n.Sessions; s == nil || s.Opened != 8 || !s.Origin.Clean || !s.Relay.Clean {
		t.Errorf("sessions: %+v", n.Sessions)
	}

	var text bytes.Buffer
	report.Print(&text)
	for _, want := range []string{"3 nodes", "over a new link", "over an existing link", "Added by one cascade hop", "publisher", "clean"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the printed report lacks %q:\n%s", want, &text)
		}
	}
	if b, err := json.Marshal(report); err != nil || !bytes.Contains(b, []byte(`"beyond_keyframe_ms":{"n":2,`)) {
		t.Errorf("as JSON: %s, %v", b, err)
	}
}
