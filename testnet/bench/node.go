package bench

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"weir/cmd/weir/api"
	"weir/dht"
	"weir/sfu"
	"weir/testnet"
)

// A node is one node under test, used through its public interfaces.
type node struct{ testnet.Node }

// whip and whep are a stream's endpoints at n.
func (n node) whip(stream string) string { return n.HTTP + "/whip/" + stream }
func (n node) whep(stream string) string { return n.HTTP + "/whep/" + stream }

// serves reports whether url, of a session, belongs to n.
func (n node) serves(url string) bool { return strings.HasPrefix(url, n.HTTP+"/") }

func (n node) status(ctx context.Context) (api.Status, error) { return n.API().Status(ctx) }

// linkTo is the link between n and other, nil if there is none.
func (n node) linkTo(ctx context.Context, other node) (*sfu.LinkStatus, error) {
	links, err := n.API().Links(ctx)
	if i := slices.IndexFunc(links, func(l sfu.LinkStatus) bool { return l.Peer == other.PeerID }); i >= 0 {
		return &links[i], err
	}
	return nil, err
}

func (n node) decisions(ctx context.Context) ([]dht.Decision, error) { return n.API().Decisions(ctx) }

// finds waits until n finds that origin, and no other node, carries stream.
func (n node) finds(ctx context.Context, stream string, origin node) error {
	return until(ctx, fmt.Sprintf("%s finds %s at %s alone", n.Name, stream, origin.Name), func() (bool, error) {
		list, err := n.API().Records(ctx, stream)
		records := list.Records
		return len(records) == 1 && records[0].Valid && records[0].Node == origin.PeerID, err
	})
}

// heap returns the bytes of live heap objects, after a collection.
func (n node) heap(ctx context.Context) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Admin+"/debug/pprof/heap?gc=1&debug=1", nil)
	if err != nil {
		return 0, err
	}
	req.Close = true // an idle connection would count as a goroutine of the node
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "# HeapAlloc = "); ok {
			return strconv.ParseInt(v, 10, 64)
		}
	}
	return 0, fmt.Errorf("%s: the heap profile does not tell HeapAlloc (%s)", n.Name, resp.Status)
}

const (
	pollPause = 20 * time.Millisecond
	// patience bounds the waiting for events that must come by themselves: a
	// record that spreads, a link that is closed 10 s after its last use.
	patience = 25 * time.Second
)

// until polls cond until it is true. The error says what was waited for.
func until(ctx context.Context, what string, cond func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(pollPause)
	defer tick.Stop()
	for {
		ok, err := cond()
		if ok && err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if err == nil {
				err = ctx.Err()
			}
			return fmt.Errorf("wait until %s: %w", what, err)
		}
	}
}
