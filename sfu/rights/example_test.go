package rights_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"weir/sfu/rights"
)

// An operator signs tokens with a key that nodes do not have; a node checks them
// with the public one.
func Example() {
	dir, err := os.MkdirTemp("", "rights")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	key, err := rights.NewKey("2026")
	if err != nil {
		fmt.Println(err)
		return
	}
	keys := filepath.Join(dir, "keys.json")
	if err := os.WriteFile(keys, key.Public(), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	node, err := rights.New(rights.Config{Network: "dev", Keys: keys})
	if err != nil {
		fmt.Println(err)
		return
	}

	token, err := rights.Sign(rights.Token{
		Network: []string{"dev"},
		Rights:  []rights.Action{rights.View},
		Streams: []string{"concert/*"},
		Expires: time.Now().Add(time.Hour),
	}, key)
	if err != nil {
		fmt.Println(err)
		return
	}
	check := func(action rights.Action, stream, token string) {
		grant, err := node.Check(context.Background(), rights.Request{Action: action, Stream: stream, Token: token})
		var refusal *rights.Refusal
		if errors.As(err, &refusal) {
			fmt.Printf("%s %s: %s\n", action, stream, refusal.Reason)
			return
		}
		defer grant.Close()
		fmt.Printf("%s %s: allowed\n", action, stream)
	}
	check(rights.View, "concert/main", token)
	check(rights.View, "rehearsal", token)
	check(rights.Publish, "concert/main", token)
	check(rights.View, "concert/main", "")

	// Output:
	// view concert/main: allowed
	// view rehearsal: token-other-stream
	// publish concert/main: token-other-right
	// view concert/main: token-missing
}
