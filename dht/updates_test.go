package dht

import (
	"testing"

	"weir/capacity"
	"weir/capacity/signed"
)

func sealUpdate(t testing.TB, n *testNode, base []byte, r capacity.Record) []byte {
	t.Helper()
	b, err := signed.SealUpdate(capacity.Record{}, base, r, n.key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
