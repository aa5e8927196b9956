// Package dhttest provides what the tests of nodes need: fresh identities,
// ports, and patience with what other goroutines do.
package dhttest

import (
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// Patience is how long a test waits for a condition that should hold soon. It is
// long, for a machine with other work.
const Patience = 2 * time.Minute

// Key returns a new Ed25519 key.
func Key(tb testing.TB) crypto.PrivKey {
	tb.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// ID returns the peer ID of key.
func ID(tb testing.TB, key crypto.PrivKey) peer.ID {
	tb.Helper()
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// Eventually waits until check returns nil, and fails the test with its last
// error if it has not within [Patience].
func Eventually(tb testing.TB, check func() error) {
	tb.Helper()
	Within(tb, Patience, check)
}

// Within is Eventually with a limit of its own.
func Within(tb testing.TB, limit time.Duration, check func() error) {
	tb.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("after %v: %v", limit, err)
		}
	}
}

// The kernel gives no port below firstEphemeral to sockets that ask for any.
const firstPort, firstEphemeral = 20_000, 32_000

// FixedPorts returns listen addresses, TCP and QUIC, on a loopback port that is
// free now and that no process gets by asking for any, for a node that restarts
// on it.
func FixedPorts(tb testing.TB) []multiaddr.Multiaddr {
	tb.Helper()
	for range 100 {
		port := firstPort + mathrand.IntN(firstEphemeral-firstPort)
		tcp, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp4", tcp.Addr().String())
		_ = tcp.Close()
		if err != nil {
			continue
		}
		_ = udp.Close()
		return []multiaddr.Multiaddr{
			multiaddr.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)),
			multiaddr.StringCast(fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", port)),
		}
	}
	tb.Fatal("no free port found")
	return nil
}
