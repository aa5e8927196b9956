package overlay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity/durable"
)

const (
	maxRemembered = 256
	maxPeerAddrs  = 8
	maxPeerFile   = 1 << 20 // bytes
)

// peerFile is the JSON in a Config's PeerFile, the latest peer first.
type peerFile struct {
	Peers []filedPeer `json:"peers"`
}

type filedPeer struct {
	ID    string   `json:"id"`
	Addrs []string `json:"addrs"`
}

// ReadPeerFile returns the peers in the file at path; none if there is no such
// file or path is empty.
func ReadPeerFile(path string) ([]peer.AddrInfo, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPeerFile+1))
	if err != nil {
		return nil, err
	}
	return parsePeerFile(b)
}

func parsePeerFile(b []byte) ([]peer.AddrInfo, error) {
	if len(b) > maxPeerFile {
		return nil, fmt.Errorf("more than %d bytes", maxPeerFile)
	}
	var file peerFile
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, err
	}
	var peers []peer.AddrInfo
	for _, fp := range file.Peers {
		id, err := peer.Decode(fp.ID)
		if err != nil {
			return nil, fmt.Errorf("peer %.80q: %w", fp.ID, err)
		}
		ai := peer.AddrInfo{ID: id}
		for _, s := range fp.Addrs {
			a, err := multiaddr.NewMultiaddr(s)
			if err != nil {
				return nil, fmt.Errorf("address of peer %s: %w", id, err)
			}
			ai.Addrs = append(ai.Addrs, a)
		}
		peers = append(peers, ai)
	}
	return mergePeers(peers, nil), nil
}

// writePeerFile replaces the file at path atomically.
func writePeerFile(path string, peers []peer.AddrInfo) error {
	var file peerFile
	for _, ai := range peers {
		fp := filedPeer{ID: ai.ID.String()}
		for _, a := range ai.Addrs {
			fp.Addrs = append(fp.Addrs, a.String())
		}
		file.Peers = append(file.Peers, fp)
	}
	b, err := json.MarshalIndent(file, "", "\t")
	if err != nil {
		return err
	}
	return durable.Replace(path, append(b, '\n'), 0o600)
}

// A peerKeeper writes a peer file when its content has changed. A failure is
// logged once, and again when its reason changes. It belongs to one goroutine.
type peerKeeper struct {
	path    string
	log     *slog.Logger
	written []peer.AddrInfo
	failing string // why the last write failed; "": it did not
}

func (k *peerKeeper) keep(peers []peer.AddrInfo) {
	if len(peers) == 0 || slices.EqualFunc(peers, k.written, samePeer) {
		return
	}
	reason := ""
	if err := writePeerFile(k.path, peers); err != nil {
		reason = reasonOf(err)
	} else {
		k.written = peers
	}
	switch {
	case reason == k.failing:
	case reason != "":
		k.log.Warn("peers not remembered: a restart finds the network by its bootstrap peers only", "file", k.path, "err", reason)
	default:
		k.log.Info("peers remembered again", "file", k.path)
	}
	k.failing = reason
}

// reasonOf is why a file could not be written, without the name of the
// temporary file, which differs each time.
func reasonOf(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// mergePeers puts fresh before old, each peer once, within the bounds of a peer
// file. Peers without addresses are left out.
func mergePeers(fresh, old []peer.AddrInfo) []peer.AddrInfo {
	seen := make(map[peer.ID]bool)
	var merged []peer.AddrInfo
	for _, ai := range slices.Concat(fresh, old) {
		if len(merged) == maxRemembered {
			break
		}
		if seen[ai.ID] || len(ai.Addrs) == 0 {
			continue
		}
		seen[ai.ID] = true
		ai.Addrs = ai.Addrs[:min(len(ai.Addrs), maxPeerAddrs)]
		merged = append(merged, ai)
	}
	return merged
}

func samePeer(a, b peer.AddrInfo) bool {
	return a.ID == b.ID && slices.EqualFunc(a.Addrs, b.Addrs, multiaddr.Multiaddr.Equal)
}
