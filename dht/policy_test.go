package dht

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	kaddht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/dhttest"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/policysync"
)

// A sheet records the policies that a test's node was told to apply.
type sheet struct {
	mu      sync.Mutex
	applied []uint64
}

func (s *sheet) apply(p signed.Policy, _ []byte) error {
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

// A policy pushed at one node is applied by all, each version once; an absent
// node catches up; a policy that the operator has not signed does not spread.
func TestPolicySpreads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		operator, stranger := dhttest.Key(t), dhttest.Key(t)
		var sheets []*sheet
		change := func(c *Config) {
			s := &sheet{}
			sheets = append(sheets, s)
			c.Operator, c.Apply = dhttest.ID(t, operator), s.apply
		}
		nodes := newTestNetworkOf(t, 6, func(int, *testNode) {}, change)
		version := func(v uint64) []byte {
			t.Helper()
			sealed, err := signed.SealPolicy("p", []byte(somePolicy), v, time.Now(), operator)
			if err != nil {
				t.Fatal(err)
			}
			return sealed
		}
		all := func(want string) {
			t.Helper()
			dhttest.Eventually(t, func() error {
				for i, s := range sheets {
					if got := s.got(); got != want {
						return fmt.Errorf("node %d applied %s, want %s", i, got, want)
					}
				}
				return nil
			})
		}
		if _, err := nodes[3].Policies.Push(version(1)); err != nil {
			t.Fatal(err)
		}
		all("[1]")
		if _, err := nodes[0].Policies.Push(version(5)); err != nil { // a gap in versions does not matter
			t.Fatal(err)
		}
		all("[1 5]")
		for name, sealed := range map[string][]byte{"older": version(4), "the same": version(5)} {
			if _, err := nodes[1].Policies.Push(sealed); !errors.Is(err, policysync.ErrOld) {
				t.Errorf("%s: %v", name, err)
			}
		}
		forged, err := signed.SealPolicy("p", []byte(somePolicy), 9, time.Now(), stranger)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nodes[1].Policies.Push(forged); !errors.Is(err, capacity.ErrForged) {
			t.Errorf("a stranger's: %v", err)
		}
		// A peer that offers another policy gets the reason why it is not taken,
		// and the right one.
		resp := nodes[1].Policies.Answer(nodes[2].ID(), &pb.PolicyExchange{Version: 9, Sealed: forged})
		if !strings.Contains(resp.Error, "signed by") || resp.Version != 5 {
			t.Errorf("a stranger's, offered: %v", resp)
		}
		if resp := nodes[1].Policies.Answer(nodes[2].ID(), &pb.PolicyExchange{Version: 2}); resp.Version != 5 || len(resp.Sealed) == 0 {
			t.Errorf("to one that is behind: %v", resp)
		}

		late := newTestNode(t, func(c *Config) { c.Bootstrap = append(c.Bootstrap, nodes[0].info()); change(c) })
		late.run(t)
		dhttest.Eventually(t, func() error {
			if got := sheets[6].got(); got != "[5]" {
				return fmt.Errorf("the newcomer applied %s", got)
			}
			return nil
		})
	})
}

// A policy is stored in the DHT itself, where a node finds it without a peer
// that has it, and the DHT stores nothing else.
func TestPolicyIsInTheDHT(t *testing.T) {
	bubble(t, func(t *testing.T) {
		operator, stranger := dhttest.Key(t), dhttest.Key(t)
		id := dhttest.ID(t, operator)
		nodes := newTestNetworkOf(t, 4, func(int, *testNode) {}, func(c *Config) {
			c.Operator, c.Apply = id, new(sheet).apply
		})
		seal := func(version uint64, by crypto.PrivKey) []byte {
			t.Helper()
			sealed, err := signed.SealPolicy("p", []byte(somePolicy), version, time.Now(), by)
			if err != nil {
				t.Fatal(err)
			}
			return sealed
		}
		two := seal(2, operator)
		if _, err := nodes[0].Policies.Push(two); err != nil {
			t.Fatal(err)
		}
		// A node of the network that speaks kad-dht and nothing else.
		_, options := listen(t)
		o, err := overlay.New(overlay.Config{
			Libp2p: options,
			Key:    dhttest.Key(t), Prefix: protocolPrefix(nodes[0].NetworkID()), Client: true,
			Values: kaddht.Validator(policysync.Validator{Operator: id}),
		})
		if err != nil {
			t.Fatal(err)
		}
		h, kad := o.Host, o.Kad
		t.Cleanup(func() {
			if err := o.Close(); err != nil {
				t.Error(err)
			}
		})
		for _, n := range nodes {
			if err := h.Connect(t.Context(), n.info()); err != nil {
				t.Fatal(err)
			}
		}
		read := func() ([]byte, error) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			return kad.GetValue(ctx, policysync.Key(id))
		}
		dhttest.Eventually(t, func() error {
			got, err := read()
			if err == nil && !bytes.Equal(got, two) {
				err = errors.New("another value")
			}
			return err
		})
		for name, put := range map[string]struct {
			key   string
			value []byte
			want  string
		}{
			"a stranger's policy":            {policysync.Key(id), seal(9, stranger), "signed by"},
			"an older one":                   {policysync.Key(id), seal(1, operator), ""}, // kad-dht does not report that no peer kept it
			"something else":                 {policysync.Key(id), []byte("x"), "malformed"},
			"a policy under another's key":   {policysync.Key(dhttest.ID(t, stranger)), two, "only the operator's policy"},
			"a value under a key of no kind": {"/pk/x", []byte("x"), "only the operator's policy"},
		} {
			// Bypass our own validator, as a peer without one would.
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			err := kad.PutValue(ctx, put.key, put.value)
			cancel()
			if put.want != "" && (err == nil || !strings.Contains(err.Error(), put.want)) {
				t.Errorf("%s: %v, want %q", name, err, put.want)
			}
		}
		if got, err := read(); err != nil || !bytes.Equal(got, two) {
			t.Errorf("in the end %v, %d bytes", err, len(got))
		}
	})
}
