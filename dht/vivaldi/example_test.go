package vivaldi_test

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/vivaldi"
)

// Two nodes that measure round trips to each other soon predict them from their
// coordinates alone.
func ExampleClient() {
	here, err := vivaldi.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	there, err := vivaldi.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 100 {
		here.Observe(peer.ID("there"), there.Here(), 40*time.Millisecond)
		there.Observe(peer.ID("here"), here.Here(), 40*time.Millisecond)
	}
	fmt.Println(here.Predict(there.Here()).Round(5 * time.Millisecond))

	// Output:
	// 40ms
}
