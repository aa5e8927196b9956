package pb

import (
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// maxPeerAddrs bounds the addresses of a Peer.
const maxPeerAddrs = 4

// PeerOf encodes ai, with the first few of its addresses.
func PeerOf(ai peer.AddrInfo) *Peer {
	w := &Peer{Id: []byte(ai.ID)}
	for _, a := range ai.Addrs[:min(len(ai.Addrs), maxPeerAddrs)] {
		w.Addrs = append(w.Addrs, a.Bytes())
	}
	return w
}

// AddrInfo decodes w, with at most the first few of its addresses.
func (x *Peer) AddrInfo() (peer.AddrInfo, error) {
	id, err := peer.IDFromBytes(x.GetId())
	if err != nil {
		return peer.AddrInfo{}, err
	}
	ai := peer.AddrInfo{ID: id}
	for _, b := range x.Addrs[:min(len(x.Addrs), maxPeerAddrs)] {
		a, err := multiaddr.NewMultiaddrBytes(b)
		if err != nil {
			return peer.AddrInfo{}, err
		}
		ai.Addrs = append(ai.Addrs, a)
	}
	return ai, nil
}
