package invite

import (
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
)

const (
	someID   = "12D3KooWHJBy88w5VomhCLk2J5V3Vqwx7hzhHfxfrTQTfoXa2YH9"
	someAddr = "/ip4/127.0.0.1/tcp/4001/p2p/" + someID
)

func TestJoinToken(t *testing.T) {
	want := Invitation{Version: Version, Network: "film night", Bootstrap: []string{someAddr}, Operator: someID}
	token, err := want.Token()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseInvitation(token + "\n")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestBadJoinTokens(t *testing.T) {
	encode := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	good, err := Invitation{Version: Version, Network: "open", Bootstrap: []string{someAddr}}.Token()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ token, want string }{
		"empty":                  {"", "not a token"},
		"no base64":              {"what?", "want one as weir network invite prints it"},
		"cut off":                {good[:len(good)/2], "not all of it"},
		"no JSON":                {encode("hello"), "not a token"},
		"of a later version":     {encode(`{"v":3,"certificate":"…"}`), "version 3, this weir knows 2"},
		"unknown field":          {encode(`{"v":2,"network":"a","secret":"b"}`), "damaged"},
		"two":                    {encode(`{"v":2,"network":"a"} {"v":1}`), "not a token"},
		"no network":             {encode(`{"v":2,"bootstrap":["` + someAddr + `"]}`), "no network"},
		"no address":             {encode(`{"v":2,"network":"a"}`), "no address"},
		"an address that is no":  {encode(`{"v":2,"network":"a","bootstrap":["/ip4/1.2.3.4/tcp/1"]}`), "/p2p/"},
		"an operator that is no": {encode(`{"v":2,"network":"a","operator":"me","bootstrap":["` + someAddr + `"]}`), "operator me"},
		"a mode that is none":    {encode(`{"v":2,"network":"a","discovery":"some","bootstrap":["` + someAddr + `"]}`), "some"},
		"too long":               {strings.Repeat("a", maxToken+1), "at most"},
		"too many addresses":     {encode(`{"v":2,"network":"a","bootstrap":["` + strings.Repeat(`x","`, 40) + `x"]}`), "at most 32"},
	} {
		if _, err := parseInvitation(c.token); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// A token that parses has the same content after it is written again.
func FuzzParseInvitation(f *testing.F) {
	for _, i := range []Invitation{
		{Version: Version, Network: "open", Bootstrap: []string{someAddr}},
		{Version: Version, Network: "open", Bootstrap: []string{someAddr}, Operator: someID},
		{Version: Version, Network: "open", Discovery: "push", Servers: []string{someAddr}},
	} {
		token, err := i.Token()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(token)
	}
	f.Add("")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"v":2,"v":1,"network":null}`)))
	f.Fuzz(func(t *testing.T, token string) {
		i, err := parseInvitation(token)
		if err != nil {
			return
		}
		again, err := i.Token()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseInvitation(again); len(again) <= maxToken && (err != nil || !reflect.DeepEqual(back, i)) {
			t.Fatalf("%+v reads back as %+v, %v", i, back, err)
		}
	})
}
