package forward

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestParseServer(t *testing.T) {
	for given, want := range map[string]string{
		"mtx http://127.0.0.1:8889/x/whip http://127.0.0.1:8889/x/whep 12":                 "",
		"mtx http://127.0.0.1:8889/x/whip http://127.0.0.1:8889/x/whep A=1 B=2 sh mtx.yml": "",
		"mtx http://127.0.0.1:8889/x/whip http://127.0.0.1:8889/x/whep /no/mtx x.yml":      "/no/mtx",
		"mtx http://127.0.0.1:8889/x/whip http://127.0.0.1:8889/x/whep A=1":                "no command",
		"mtx http://127.0.0.1:8889/x/whip 12":                                              "want its name",
		"mtx 127.0.0.1:8889/x/whip http://127.0.0.1:8889/x/whep 12":                        "no http URL",
		"mtx http://127.0.0.1:8889/x/whip http://127.0.0.1:8889/x/whep -1":                 "no PID",
		"mtx http://127.0.0.1:8889/x/whip rtsp://127.0.0.1:8554/x /usr/bin/mtx a.yml":      "no http URL",
	} {
		s, err := ParseServer(given)
		if want == "" {
			if err != nil || s.Name != "mtx" || (s.PID == 12) == (len(s.Command) == 2 && len(s.Env) == 2) {
				t.Errorf("%q: got %+v, %v", given, s, err)
			}
			continue
		}
		if !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", given, err, want)
		}
	}
}

func TestCheckTellsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want string // in the error; "" for none
	}{
		"the floor alone":        {Config{}, ""},
		"nothing to measure":     {Config{NoFloor: true}, "neither"},
		"no viewer":              {Config{Viewers: []int{0}}, "1 to"},
		"two of one name":        {Config{Servers: []Server{{Name: "a"}, {Name: "a"}}}, "called a"},
		"longer than is counted": {Config{Duration: 2 * time.Minute}, "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.cfg.Check()
			if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrInput) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Check = %v, want it to say %q", err, c.want)
			}
		})
	}
}

func TestLimitNamesTheSide(t *testing.T) {
	for name, c := range map[string]struct {
		row  Row
		want Limit
	}{
		"neither":                        {Row{Viewers: 2, Joined: 2, ServerShare: 0.5, GeneratorShare: 0.5}, LimitNone},
		"the server's CPU":               {Row{Viewers: 2, Joined: 2, ServerShare: 0.97}, LimitServer},
		"packets are lost":               {Row{Viewers: 2, Joined: 2, Lost: 0.01}, LimitServer},
		"not all joined":                 {Row{Viewers: 2, Joined: 1}, LimitServer},
		"a full generator comes first":   {Row{Viewers: 2, Joined: 2, ServerShare: 1, GeneratorShare: 0.95}, LimitGenerator},
		"what the receiver dropped":      {Row{Viewers: 2, Joined: 2, Lost: 0.01, GeneratorDropped: 1}, LimitGenerator},
		"others took the server's CPU":   {Row{Viewers: 2, Joined: 2, Lost: 0.01, ServerShare: 0.5, OthersShare: 0.5}, LimitOthers},
		"others that left enough for it": {Row{Viewers: 2, Joined: 2, ServerShare: 0.5, OthersShare: 0.5}, LimitNone},
	} {
		if got := c.row.limit(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// The smallest run measures a real node. Counts must hold; times are the
// machine's.
func TestForward(t *testing.T) {
	if testing.Short() || runtime.GOOS != "linux" {
		t.Skip("starts a process, and needs Linux")
	}
	defer goleak.VerifyNone(t)
	binary := filepath.Join(t.TempDir(), "weir")
	if out, err := exec.Command("go", "build", "-o", binary, "weir/cmd/weir").CombinedOutput(); err != nil {
		t.Fatalf("build weir: %v\n%s", err, out)
	}
	r, err := Run(t.Context(), Config{
		Servers: []Server{{Name: "weir", Weir: binary}}, Dir: t.TempDir(), Viewers: []int{2},
		Duration: 2 * time.Second, Settle: 500 * time.Millisecond, // on one CPU, so that nothing is pinned
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 1 || len(r.Floor) != 1 {
		t.Fatalf("%d rows, %d floors", len(r.Rows), len(r.Floor))
	}
	row := r.Rows[0]
	if row.Joined != 2 || row.Failure != "" || row.Unopened != 0 {
		t.Errorf("%d joined, %q; %d packets not decrypted", row.Joined, row.Failure, row.Unopened)
	}
	// On a busy machine packets come late, not wrong.
	if row.Packets < 100 || row.Lost > 0.5 || row.FramesLost > 0.5 || row.FirstP50 <= 0 || row.P50 <= 0 || row.P99 < row.P50 {
		t.Errorf("got %+v", row)
	}
	if r.Floor[0].PerMillion <= 0 {
		t.Errorf("floor %+v", r.Floor[0])
	}

	dir := t.TempDir()
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	again, err := Read(filepath.Join(dir, "forward.json"))
	if err != nil {
		t.Fatal(err)
	}
	before, _ := json.Marshal(r)
	after, _ := json.Marshal(again)
	if !bytes.Equal(before, after) {
		t.Errorf("read back:\n%s\nwant:\n%s", after, before)
	}
	var table strings.Builder
	if err := again.Markdown(&table); err != nil || !strings.Contains(table.String(), "| 2 | weir | ") || !strings.Contains(table.String(), "| 2 | floor | ") {
		t.Errorf("%v; the table has no line of the server or the floor:\n%s", err, &table)
	}
}
