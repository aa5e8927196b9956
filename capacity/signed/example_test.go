package signed_test

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/signed"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// node returns the key of a node, and a record that it may sign.
func node() (crypto.PrivKey, capacity.Record) {
	key, _, err := crypto.GenerateEd25519Key(strings.NewReader(strings.Repeat("a seed", 8)))
	if err != nil {
		panic(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		panic(err)
	}
	return key, capacity.Record{
		Node: id, Seq: 7, Issued: now, TTL: capacity.DefaultTTL,
		State:    capacity.Active,
		Sessions: capacity.Usage{Used: 61, Limit: 500},
	}
}

// What a node claims about itself is signed by it; a changed byte, or the wrong
// time, is noticed by whoever opens it.
func ExampleSealRecord() {
	key, record := node()
	sealed, err := signed.SealRecord(record, key)
	if err != nil {
		fmt.Println(err)
		return
	}
	opened, err := signed.OpenRecord(sealed, now.Add(time.Second))
	fmt.Println(opened.Node == record.Node, opened.Sessions.Used, err)

	_, err = signed.OpenRecord(sealed, now.Add(time.Hour))
	fmt.Println("expired:", errors.Is(err, capacity.ErrExpired))

	sealed[len(sealed)-1]++
	_, err = signed.OpenRecord(sealed, now)
	fmt.Println("forged:", errors.Is(err, capacity.ErrForged))

	// Output:
	// true 61 <nil>
	// expired: true
	// forged: true
}

// Between two whole records a node sends signed updates of its load, which take
// a fraction of their size.
func ExampleSealUpdate() {
	key, record := node()
	sealed, err := signed.SealRecord(record, key)
	if err != nil {
		fmt.Println(err)
		return
	}
	later := record
	later.Seq, later.Issued = 8, now.Add(5*time.Second)
	later.Sessions.Used = 62
	update, err := signed.SealUpdate(record, sealed, later, key)
	if err != nil {
		fmt.Println(err)
		return
	}

	// A holder has the record, and puts the update into it.
	held, err := signed.OpenRecord(sealed, now)
	if err != nil {
		fmt.Println(err)
		return
	}
	current, _, err := signed.ApplyUpdate(held, sealed, update)
	fmt.Println(current.Seq, current.Sessions.Used, err)
	fmt.Println("shorter:", len(update) < len(sealed))

	// Output:
	// 8 62 <nil>
	// shorter: true
}
