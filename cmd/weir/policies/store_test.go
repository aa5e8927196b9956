package policies

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/record"
	"google.golang.org/protobuf/proto"

	"weir/capacity/capacitytest"
	"weir/capacity/event"
	"weir/capacity/pb"
	"weir/capacity/signed"
	"weir/dht"
	"weir/dht/inspect"
)

// unchecked is a signed policy's payload with arbitrary text.
type unchecked struct{ pb.Policy }

func (p *unchecked) Domain() string                 { return "weir-policy" }
func (p *unchecked) Codec() []byte                  { return []byte("\x84\x80\xc0\x01") }
func (p *unchecked) MarshalRecord() ([]byte, error) { return proto.Marshal(&p.Policy) }
func (p *unchecked) UnmarshalRecord(b []byte) error { return proto.Unmarshal(b, &p.Policy) }

// sealUnchecked signs text as an earlier release did, with other variable names.
func sealUnchecked(t *testing.T, version uint64, text string, key crypto.PrivKey) []byte {
	t.Helper()
	p := unchecked{}
	p.Version, p.Issued, p.Text = version, 1_700_000_000_000, []byte(text)
	envelope, err := record.Seal(&p, key)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := envelope.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// A policy signed with variables of an earlier release is rejected by name, and
// the one before it, or the built-in one, is in force: the log and weir doctor
// report it until there is a newer one.
func TestPolicySignedUnderOldWords(t *testing.T) {
	key := capacitytest.Key(t, "operator")
	old := "name: packed\nversion: 1\nmood: pack\nfilter: []\nscore:\n  - {name: a, expr: r.lot}\n"
	start := func(dir string) (*Store, string) {
		t.Helper()
		var told strings.Builder
		f, err := Open("", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		f.Event = func(e event.Event) { told.WriteString(string(e.Kind) + " " + e.Detail + "\n") }
		s := &Store{Dir: dir, Operator: capacitytest.ID(t, "operator"), Policy: f, Log: slog.New(slog.DiscardHandler)}
		d, err := dht.Listen(dht.Config{Key: capacitytest.Key(t, "node"), Network: "policies", Operator: s.Operator, Apply: s.Apply, Policy: f.Policy, Log: s.Log})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = d.Close() }()
		if err := s.Restore(d.Policies.Push); err != nil {
			t.Fatal(err)
		}
		return s, told.String()
	}
	keep := func(s *Store, version uint64, sealed []byte) {
		t.Helper()
		if err := s.keep(version, sealed); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	s, told := start(dir)
	if c := s.Check(); told != "" || c.Outcome != inspect.Fine {
		t.Errorf("nothing is kept, but %q is told and the check says %+v", told, c)
	}
	keep(s, 3, sealUnchecked(t, 3, old, key))
	s, told = start(dir)
	if p := s.Policy.Policy().Policy(); p.Name != "default" || p.Version != 0 {
		t.Errorf("%q version %d is in force, want the built-in one", p.Name, p.Version)
	}
	for _, want := range []string{"policy.refused version 3, kept from before", "policy version 3:3:1: field \"mood\" is called strategy now"} {
		if !strings.Contains(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	}
	c := s.Check()
	if c.Outcome != inspect.Warning || !strings.Contains(c.Seen, "is called strategy now") || !strings.Contains(c.Do, "--as 4") {
		t.Errorf("the check says %+v", c)
	}

	sealed, err := signed.SealPolicy("p", []byte(versionOne), 2, time.Now(), key)
	if err != nil {
		t.Fatal(err)
	}
	keep(s, 2, sealed)
	s, told = start(dir)
	if p := s.Policy.Policy().Policy(); p.Version != 2 || !strings.Contains(told, "policy.refused version 3") || s.Check().Outcome != inspect.Warning {
		t.Errorf("version %d is in force, want the newest that can be used, 2; told %q", p.Version, told)
	}

	if sealed, err = signed.SealPolicy("p", []byte(versionOne), 4, time.Now(), key); err != nil {
		t.Fatal(err)
	}
	keep(s, 4, sealed)
	s, told = start(dir)
	if p := s.Policy.Policy().Policy(); p.Version != 4 || strings.Contains(told, "refused") || s.Check().Outcome != inspect.Fine {
		t.Errorf("version %d is in force, want 4; told %q", p.Version, told)
	}
}
