package capacity_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"weir/capacity"
	"weir/capacity/capacitytest"
	"weir/capacity/policy"
	"weir/capacity/signed"
)

var rewrite = flag.Bool("update", false, "rewrite the golden files in testdata")

// The keys are part of the admin API.
func TestRecordJSON(t *testing.T) {
	r := capacitytest.Record(t, "golden")
	r.Carries = capacitytest.StreamInfo(t, r.Node)
	got, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "record.json")
	if *rewrite {
		if err := os.WriteFile(path, append(got, '\n'), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got)+"\n" != string(want) {
		t.Errorf("the JSON has changed; if that is meant, run with -update\ngot:\n%s\nwant:\n%s", got, want)
	}
	pointed, err := json.MarshalIndent(&r, "", "  ")
	if err != nil || string(pointed) != string(got) {
		t.Errorf("a pointer is written differently: %s, %v", pointed, err)
	}
}

func TestRecordJSONReadsBack(t *testing.T) {
	sealed := func(r capacity.Record) capacity.Record {
		b, err := signed.SealRecord(r, capacitytest.Key(t, "node"))
		if err != nil {
			t.Fatal(err)
		}
		r, err = signed.OpenRecord(b, capacitytest.Epoch)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := capacitytest.Record(t, "node")
	carrying := r
	carrying.Carries = capacitytest.StreamInfo(t, r.Node)
	for _, tt := range []struct {
		name string
		r    capacity.Record
	}{
		{"a typical record", sealed(r)},
		{"of a carrier", sealed(carrying)},
		{"with nothing but what is required", sealed(capacity.Record{Node: r.Node, Seq: 1, Issued: capacitytest.Epoch, TTL: capacity.DefaultTTL})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := json.Marshal(tt.r)
			if err != nil {
				t.Fatal(err)
			}
			var got capacity.Record
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			// A coordinate's decimals are those of its float32.
			if got.Coordinate != nil {
				for i, x := range got.Coordinate.Vec {
					got.Coordinate.Vec[i] = float64(float32(x))
				}
			}
			if !reflect.DeepEqual(got, tt.r) {
				t.Errorf("got  %+v\nwant %+v", got, tt.r)
			}
		})
	}
}

func TestBadJSONIsRefused(t *testing.T) {
	for _, tt := range []struct{ name, json, want string }{
		{"an unknown state", `{"state":"tired"}`, `state "tired" is none of active, draining, full`},
		{"a state by number", `{"state":1}`, "cannot unmarshal"},
		{"an address that is none", `{"addrs":["here"]}`, "addrs"},
		{"a node that is none", `{"node":"me"}`, "peer ID"},
		{"a TTL beyond all time", `{"ttl_ms":1e300}`, "ttl_ms"},
		{"an RTT beyond all time", `{"carries":{"parent_rtt_ms":-1e300}}`, "parent_rtt_ms"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r capacity.Record
			if err := json.Unmarshal([]byte(tt.json), &r); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestNamesReadBack(t *testing.T) {
	for s := range capacity.Full + 1 {
		b, err := s.MarshalText()
		var got capacity.State
		if err != nil || got.UnmarshalText(b) != nil || got != s || s.String() != string(b) {
			t.Errorf("state %d is %q in text and %q as a string, %v", s, b, s, err)
		}
	}
	for p := range capacity.Cascade + 1 {
		b, err := p.MarshalText()
		var got capacity.Purpose
		if err != nil || got.UnmarshalText(b) != nil || got != p || p.String() != string(b) {
			t.Errorf("purpose %d is %q in text and %q as a string, %v", p, b, p, err)
		}
	}
	if _, err := json.Marshal(capacity.State(9)); err == nil {
		t.Error("state 9 has a name")
	}
	if s := capacity.Purpose(9).String(); s != "9" {
		t.Errorf("purpose 9 is %q", s)
	}
	if _, err := capacity.ParsePurpose("views"); err == nil || !strings.Contains(err.Error(), "view, publish, cascade") {
		t.Errorf("got %v, want an error that lists the purposes", err)
	}
}

func FuzzRecordJSON(f *testing.F) {
	r := capacitytest.Record(f, "node")
	r.Carries = capacitytest.StreamInfo(f, r.Node)
	b, err := json.Marshal(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"state":"full","coordinate":{"vec":[1e38]},"carries":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r capacity.Record
		if json.Unmarshal(b, &r) != nil {
			return
		}
		once, err := json.Marshal(r)
		if err != nil {
			return // a year outside JSON's range, or a usage with an infinite share
		}
		var again capacity.Record
		if err := json.Unmarshal(once, &again); err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		twice, err := json.Marshal(again)
		if err != nil || string(twice) != string(once) {
			t.Fatalf("first  %s\nsecond %s, %v", once, twice, err)
		}
	})
}

// Durations are milliseconds, and decoding reverses encoding.
func TestProvisionJSON(t *testing.T) {
	p := policy.Provision{Cooldown: 30 * time.Second, WaitTimeout: 1500 * time.Millisecond, MaxNodes: 4, IdleTimeout: time.Minute, MinNodes: 2}
	b, err := json.Marshal(p)
	if err != nil || string(b) != `{"cooldown_ms":30000,"wait_timeout_ms":1500,"max_nodes":4,"idle_timeout_ms":60000,"min_nodes":2}` {
		t.Fatalf("got %s, %v", b, err)
	}
	var back policy.Provision
	if err := json.Unmarshal(b, &back); err != nil || back != p {
		t.Errorf("read back %+v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"idle_timeout_ms":1e300}`), &back); err == nil || !strings.Contains(err.Error(), "idle_timeout_ms") {
		t.Errorf("a duration out of range: %v", err)
	}
}
