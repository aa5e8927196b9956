package udp_test

import (
	"fmt"
	"net"
	"time"

	"github.com/pion/stun/v4"

	"weir/sfu/udp"
)

// A socket passes on a connectivity check with the password of one of its peers,
// and drops and counts any other.
func ExampleSocket() {
	socket, err := udp.Listen("127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer socket.Close()
	peer := socket.NewPeer()
	defer peer.Close()
	peer.Expect("here", "a password of 24 letters", time.Now())

	client, err := net.Dial("udp", socket.LocalAddr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	for _, password := range []string{"a guess", "a password of 24 letters"} {
		check, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername("here:there"), stun.NewShortTermIntegrity(password), stun.Fingerprint)
		if err != nil {
			fmt.Println(err)
			return
		}
		if _, err := client.Write(check.Raw); err != nil {
			fmt.Println(err)
			return
		}
	}

	buffer := make([]byte, 1500)
	n, _, err := socket.ReadFromAddrPort(buffer)
	fmt.Println(stun.IsMessage(buffer[:n]), err)
	fmt.Println("dropped:", socket.Counters().Dropped["stun_integrity"])

	// Output:
	// true <nil>
	// dropped: 1
}
