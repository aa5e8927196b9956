package policysync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/dhttest"
	"weir/dht/pb"
)

const somePolicy = "name: some\nfilter:\n  - {name: room, expr: r.sessions_free >= 1}\nscore:\n  - {name: headroom, expr: 1 - r.stress}\n"

func sealPolicy(t testing.TB, key crypto.PrivKey, version uint64) []byte {
	t.Helper()
	sealed, err := signed.SealPolicy("p", []byte(somePolicy), version, time.Now(), key)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// A world is some nodes in a bubble, named by their numbers. Each reaches those
// that are not cut off, at once and without a network.
type world struct {
	nodes   []*Sync
	applied [][]uint64 // by node
	cut     []bool     // by node

	mu        sync.Mutex
	exchanges int
	values    map[string][]byte // of the DHT
}

func newWorld(t *testing.T, size int, operator peer.ID) *world {
	w := &world{applied: make([][]uint64, size), cut: make([]bool, size), values: make(map[string][]byte)}
	var tasks sync.WaitGroup
	t.Cleanup(tasks.Wait)
	for i := range size {
		self := peer.ID(strconv.Itoa(i))
		w.nodes = append(w.nodes, New(Config{
			Operator: operator,
			Apply: func(p signed.Policy, _ []byte) error {
				w.applied[i] = append(w.applied[i], p.Version)
				return nil
			},
			Peers: func() (peers []peer.ID) {
				for j := range size {
					if j != i {
						peers = append(peers, peer.ID(strconv.Itoa(j)))
					}
				}
				return peers
			},
			Exchange: func(_ context.Context, p peer.ID, req *pb.PolicyExchange) (*pb.PolicyExchange, error) {
				to, err := strconv.Atoi(string(p))
				if err != nil || w.cut[i] || w.cut[to] {
					return nil, errors.New("cut off")
				}
				w.mu.Lock()
				w.exchanges++
				w.mu.Unlock()
				return w.nodes[to].Answer(self, req), nil
			},
			Joined: func() bool { return true },
			Put: func(_ context.Context, key string, value []byte) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.values[key] = value
				return nil
			},
			Get: func(_ context.Context, key string) ([]byte, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if w.values[key] == nil {
					return nil, errors.New("not found")
				}
				return w.values[key], nil
			},
			Closest: func(string) bool { return i == 0 },
			Go: func(f func(context.Context)) bool {
				tasks.Go(func() { f(context.Background()) })
				return true
			},
			Log: slog.New(slog.DiscardHandler),
		}))
	}
	return w
}

// check fails unless each node that is not cut off has applied want.
func (w *world) check(t *testing.T, want ...uint64) {
	t.Helper()
	synctest.Wait()
	for i, got := range w.applied {
		if !w.cut[i] && !slices.Equal(got, want) {
			t.Errorf("node %d applied %v, want %v", i, got, want)
		}
	}
}

// A policy pushed at one node is applied by all, each version once.
func TestPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		operator := dhttest.Key(t)
		w := newWorld(t, 8, dhttest.ID(t, operator))
		if _, err := w.nodes[3].Push(sealPolicy(t, operator, 1)); err != nil {
			t.Fatal(err)
		}
		w.check(t, 1)
		five := sealPolicy(t, operator, 5) // a gap in versions does not matter
		if _, err := w.nodes[0].Push(five); err != nil {
			t.Fatal(err)
		}
		w.check(t, 1, 5)
		for name, c := range map[string]struct {
			sealed []byte
			want   error
		}{
			"older":       {sealPolicy(t, operator, 4), ErrOld},
			"the same":    {five, ErrOld},
			"a foreigner": {sealPolicy(t, dhttest.Key(t), 9), capacity.ErrForged},
		} {
			if _, err := w.nodes[1].Push(c.sealed); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		w.check(t, 1, 5)
		if got := w.values[Key(dhttest.ID(t, operator))]; !slices.Equal(got, five) {
			t.Errorf("%d bytes are in the DHT, want the newest policy", len(got))
		}
	})
}

// A node that was cut off catches up by the next comparison, and one that
// returns when no peer is connected by the value in the DHT.
func TestCatchUp(t *testing.T) {
	for _, way := range []string{"comparison", "connection", "DHT"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				operator := dhttest.Key(t)
				w := newWorld(t, 2, dhttest.ID(t, operator))
				w.cut[1] = true
				if _, err := w.nodes[0].Push(sealPolicy(t, operator, 2)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ready := make(chan struct{})
				if way == "DHT" {
					close(ready)
				} else {
					w.values = map[string][]byte{}
					w.cut[1] = false
				}
				switch way {
				case "connection":
					w.nodes[1].Connected("0")
				case "comparison":
					close(ready)
					fallthrough
				case "DHT":
					done := make(chan error)
					go func() { done <- w.nodes[1].Run(ctx, ready) }()
					time.Sleep(CompareEvery + time.Second)
					cancel()
					if err := <-done; !errors.Is(err, context.Canceled) {
						t.Errorf("Run = %v", err)
					}
				}
				synctest.Wait()
				if got := w.applied[1]; !slices.Equal(got, []uint64{2}) {
					t.Errorf("applied %v", got)
				}
				version, at := w.nodes[1].Compared()
				if version != 2 || at.IsZero() != (way == "DHT") {
					t.Errorf("version %d, compared at %v", version, at)
				}
			})
		})
	}
}

// The nodes closest to the key store the policy again once an hour, because
// values in the DHT expire.
func TestStoredAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		operator := dhttest.Key(t)
		w := newWorld(t, 2, dhttest.ID(t, operator))
		if _, err := w.nodes[1].Push(sealPolicy(t, operator, 1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		clear(w.values)
		ctx, cancel := context.WithTimeout(t.Context(), storeEvery+2*CompareEvery)
		defer cancel()
		ready := make(chan struct{})
		close(ready)
		done := make(chan error, 2)
		for _, n := range w.nodes {
			go func() { done <- n.Run(ctx, ready) }()
		}
		for range w.nodes {
			if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		synctest.Wait()
		if len(w.values) != 1 {
			t.Error("not stored again")
		}
	})
}

// A peer that offers another operator's policy gets the reason why it is
// refused, and one that is behind gets the right policy.
func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		operator := dhttest.Key(t)
		w := newWorld(t, 1, dhttest.ID(t, operator))
		if _, err := w.nodes[0].Push(sealPolicy(t, operator, 5)); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			req  *pb.PolicyExchange
			want string // version, sealed or not, error or not
		}{
			"forged":   {&pb.PolicyExchange{Version: 9, Sealed: sealPolicy(t, dhttest.Key(t), 9)}, "5 false true"},
			"behind":   {&pb.PolicyExchange{Version: 2}, "5 true false"},
			"the same": {&pb.PolicyExchange{Version: 5}, "5 false false"},
			"ahead":    {&pb.PolicyExchange{Version: 6}, "5 false false"},
		} {
			resp := w.nodes[0].Answer("p", c.req)
			if got := fmt.Sprint(resp.Version, len(resp.Sealed) > 0, resp.Error != ""); got != c.want {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
		}
		if resp := w.nodes[0].Answer("p", &pb.PolicyExchange{Version: 7, Sealed: sealPolicy(t, operator, 7)}); resp.Version != 7 {
			t.Errorf("a newer one is not taken: %v", resp)
		}
	})
}

func TestSelect(t *testing.T) {
	operator := dhttest.Key(t)
	v := Validator{dhttest.ID(t, operator)}
	var values [][]byte
	for _, version := range []uint64{3, 7, 7, 5} {
		sealed, err := signed.SealPolicy("p", []byte(somePolicy), version, time.UnixMilli(1e12+int64(len(values))), operator)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, sealed)
	}
	for name, c := range map[string]struct {
		values [][]byte
		want   int
		fails  bool
	}{
		"the highest version":          {values, 1, false},
		"the first of equals":          {values[1:3], 0, false},
		"the only one that is any":     {[][]byte{[]byte("x"), nil, values[3]}, 2, false},
		"none that is any is an error": {[][]byte{[]byte("x")}, 0, true},
		"nothing at all is an error":   {nil, 0, true},
	} {
		if got, err := v.Select(Key(v.Operator), c.values); got != c.want || (err != nil) != c.fails {
			t.Errorf("%s: got %d, %v", name, got, err)
		}
	}
}

// Without an operator nothing is applied, compared or stored.
func TestWithoutOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, "")
		if _, err := w.nodes[0].Push(sealPolicy(t, dhttest.Key(t), 1)); !errors.Is(err, ErrNoOperator) {
			t.Errorf("got %v", err)
		}
		w.nodes[0].Connected("1")
		if err := w.nodes[0].Run(t.Context(), nil); err != nil {
			t.Errorf("compared until %v", err)
		}
		synctest.Wait()
		if w.exchanges > 0 || len(w.values) > 0 {
			t.Errorf("%d exchanges, %d values", w.exchanges, len(w.values))
		}
	})
}

func FuzzAnswer(f *testing.F) {
	operator := dhttest.Key(f)
	id := dhttest.ID(f, operator)
	node := New(Config{
		Operator: id,
		Apply: func(p signed.Policy, _ []byte) error {
			if p.Operator != id || p.Version == 0 {
				return errors.New("must not be asked for")
			}
			_, err := policy.Compile(p.Compiled.Policy())
			return err
		},
		Go:  func(func(context.Context)) bool { return false }, // closed
		Log: slog.New(slog.DiscardHandler),
	})
	sealed, err := signed.SealPolicy("p", []byte(somePolicy), 3, time.Now(), operator)
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
		before, _ := node.held()
		resp := node.Answer("from", &m)
		after, held := node.held()
		if after < before || resp.Version != after || len(resp.Sealed) > 0 && (after <= m.Version || string(resp.Sealed) != string(held)) {
			t.Fatalf("version %d became %d, answer %v", before, after, resp)
		}
	})
}

// No value that a peer stores may end the process: kad-dht does not recover
// from panics.
func FuzzValidator(f *testing.F) {
	operator := dhttest.Key(f)
	v := Validator{dhttest.ID(f, operator)}
	sealed, err := signed.SealPolicy("p", []byte(somePolicy), 3, time.Now(), operator)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(Key(v.Operator), sealed)
	f.Add(Key(v.Operator), sealed[:len(sealed)/2])
	f.Add("/pk/x", sealed)
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		err := v.Validate(key, value)
		if err == nil && key != Key(v.Operator) {
			t.Fatalf("a value under %q is taken", key)
		}
		if i, selectErr := v.Select(key, [][]byte{value, sealed}); selectErr != nil || i == 0 && err != nil && key == Key(v.Operator) {
			t.Fatalf("%d is selected, %v; it is %v", i, selectErr, err)
		}
	})
}
