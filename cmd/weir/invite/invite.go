package invite

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"weir/dht"
	"weir/dht/directory"
)

const (
	Version  = 2  // of a token
	MaxAddrs = 32 // of each kind in a token

	maxToken = 8 << 10 // bytes
)

// An Invitation is the information a node needs to join a network. It is no
// secret and proves nothing: any node that can reach the network may join it.
type Invitation struct {
	Version   int      `json:"v"`
	Network   string   `json:"network"`
	Bootstrap []string `json:"bootstrap,omitempty"` // any one of them suffices
	Operator  string   `json:"operator,omitempty"`  // peer ID of the policies' operator
	Discovery string   `json:"discovery,omitempty"` // "": kademlia
	Servers   []string `json:"servers,omitempty"`   // for the other modes
}

// Token encodes i as the value of weir node --join.
func (i Invitation) Token() (string, error) {
	b, err := json.Marshal(i)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// parseInvitation reads a token.
func parseInvitation(token string) (Invitation, error) {
	var i Invitation
	if len(token) > maxToken {
		return i, fmt.Errorf("a token has at most %d characters, this one %d", maxToken, len(token))
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(token), "="))
	if err != nil {
		return i, errors.New("not a token, or not all of it: want one as weir network invite prints it")
	}
	var head struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return i, errors.New("not a token, or not all of it: want one as weir network invite prints it")
	}
	if head.Version != Version {
		return i, fmt.Errorf("the token has version %d, this weir knows %d: use the weir that made it", head.Version, Version)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&i); err != nil {
		return i, fmt.Errorf("the token is damaged: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return i, errors.New("the token is damaged: there is more after its end")
	}
	return i, i.check()
}

func (i Invitation) check() error {
	switch {
	case i.Network == "":
		return errors.New("the token names no network")
	case len(i.Bootstrap) > MaxAddrs || len(i.Servers) > MaxAddrs:
		return fmt.Errorf("the token has %d and %d addresses, at most %d of each", len(i.Bootstrap), len(i.Servers), MaxAddrs)
	case len(i.Bootstrap)+len(i.Servers) == 0:
		return errors.New("the token has no address to join by")
	}
	for _, a := range i.Bootstrap {
		if _, err := dht.ParseBootstrap(a); err != nil {
			return fmt.Errorf("the token: %w", err)
		}
	}
	for _, a := range i.Servers {
		if _, err := directory.ParseServer(a); err != nil {
			return fmt.Errorf("the token: %w", err)
		}
	}
	if _, err := directory.ParseMode(i.Discovery); err != nil {
		return fmt.Errorf("the token: %w", err)
	}
	if i.Operator != "" {
		if _, err := peer.Decode(i.Operator); err != nil {
			return fmt.Errorf("the token: operator %s is no ID", i.Operator)
		}
	}
	return nil
}

// Apply sets the flags of weir node from --join. A flag that is given as
// well must have the same value; further addresses are added.
func Apply(c *cli.Context) error {
	token := c.String("join")
	if token == "" {
		return nil
	}
	i, err := parseInvitation(token)
	if err != nil {
		return fmt.Errorf("--join: %w", err)
	}
	for flag, v := range map[string]string{"network": i.Network, "operator": i.Operator, "discovery": i.Discovery} {
		switch {
		case v == "":
		case c.IsSet(flag) && c.String(flag) != v:
			return fmt.Errorf("--join and --%s: the token is for %s %q, the flag says %q", flag, flag, v, c.String(flag))
		default:
			if err := c.Set(flag, v); err != nil {
				return err
			}
		}
	}
	if !directory.Mode(i.Discovery).Listed() {
		i.Servers = nil
	}
	for flag, list := range map[string][]string{"bootstrap": i.Bootstrap, "server": i.Servers} {
		for _, a := range list {
			if err := c.Set(flag, a); err != nil {
				return err
			}
		}
	}
	return nil
}
