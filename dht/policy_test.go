package dht

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/dht/pb"
)

// A sheet is what a test's node was told to apply.
type sheet struct {
	mu      sync.Mutex
	applied []uint64
}

func (s *sheet) apply(p capacity.SignedPolicy, _ []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied = append(s.applied, p.Version)
	return nil
}

func (s *sheet) got() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.applied)
}

const somePolicy = "name: some\nfilter:\n  - {name: room, expr: r.sessions_free >= 1}\nscore:\n  - {name: headroom, expr: 1 - r.stress}\n"

// A policy that is pushed at one node is applied by all, each version once; who
// was away catches up; what the operator has not signed goes nowhere.
func TestPolicySpreads(t *testing.T) {
	operator, stranger := newKey(t), newKey(t)
	var sheets []*sheet
	change := func(c *Config) {
		s := &sheet{}
		sheets = append(sheets, s)
		c.Operator, c.Apply = idOf(t, operator), s.apply
	}
	nodes := newTestNetworkOf(t, 6, func(int, *testNode) {}, change)
	version := func(v uint64) []byte {
		t.Helper()
		sealed, err := capacity.SealPolicy("p", []byte(somePolicy), v, time.Now(), operator)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	all := func(want string) {
		t.Helper()
		eventually(t, func() error {
			for i, s := range sheets {
				if got := s.got(); got != want {
					return fmt.Errorf("node %d applied %s, want %s", i, got, want)
				}
			}
			return nil
		})
	}
	if _, err := nodes[3].PushPolicy(version(1)); err != nil {
		t.Fatal(err)
	}
	all("[1]")
	if _, err := nodes[0].PushPolicy(version(5)); err != nil { // a gap does not matter
		t.Fatal(err)
	}
	all("[1 5]")
	for name, sealed := range map[string][]byte{"older": version(4), "the same": version(5)} {
		if _, err := nodes[1].PushPolicy(sealed); !errors.Is(err, ErrOldPolicy) {
			t.Errorf("%s: %v", name, err)
		}
	}
	forged, err := capacity.SealPolicy("p", []byte(somePolicy), 9, time.Now(), stranger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nodes[1].PushPolicy(forged); !errors.Is(err, capacity.ErrForged) {
		t.Errorf("a stranger's: %v", err)
	}
	// A peer that offers it is told why it is not taken, and gets the right one.
	resp := nodes[1].answerPolicy(nodes[2].ID(), &pb.PolicyExchange{Version: 9, Sealed: forged})
	if !strings.Contains(resp.Error, "signed by") || resp.Version != 5 {
		t.Errorf("a stranger's, offered: %v", resp)
	}
	if resp := nodes[1].answerPolicy(nodes[2].ID(), &pb.PolicyExchange{Version: 2}); resp.Version != 5 || len(resp.Sealed) == 0 {
		t.Errorf("to one that is behind: %v", resp)
	}

	late := newTestNode(t, func(c *Config) { c.Bootstrap = append(c.Bootstrap, nodes[0].info()); change(c) })
	late.run(t)
	eventually(t, func() error {
		if got := sheets[6].got(); got != "[5]" {
			return fmt.Errorf("the newcomer applied %s", got)
		}
		return nil
	})
}

func TestPolicyWithoutOperator(t *testing.T) {
	n := newTestNode(t, nil)
	sealed, err := capacity.SealPolicy("p", []byte(somePolicy), 1, time.Now(), newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.PushPolicy(sealed); !errors.Is(err, errNoOperator) {
		t.Errorf("got %v", err)
	}
}

func FuzzPolicyExchange(f *testing.F) {
	operator := newKey(f)
	id := idOf(f, operator)
	node := newTestNode(f, func(c *Config) {
		c.Listen = nil
		c.Operator = id
		c.Apply = func(p capacity.SignedPolicy, _ []byte) error {
			if p.Operator != id || p.Version == 0 {
				return errors.New("must not be asked for")
			}
			_, err := capacity.Compile(p.Judge.Policy())
			return err
		}
	})
	sealed, err := capacity.SealPolicy("p", []byte(somePolicy), 3, time.Now(), operator)
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range []*pb.PolicyExchange{{}, {Version: 1}, {Version: 3, Sealed: sealed}, {Sealed: []byte("x")}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m pb.PolicyExchange
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		before, _ := node.policies.get()
		resp := node.answerPolicy("from", &m)
		after, held := node.policies.get()
		if after < before || resp.Version != after || len(resp.Sealed) > 0 && (after <= m.Version || string(resp.Sealed) != string(held)) {
			t.Fatalf("version %d became %d, answer %v", before, after, resp)
		}
	})
}
