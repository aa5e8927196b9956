package records

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/proto"

	"weir/dht/overlay"
	"weir/dht/pb"
)

// handOverTime bounds all hand-overs of a leaving node.
const handOverTime = time.Second

// Overlay sends requests to other nodes; see [overlay.Overlay].
type Overlay interface {
	// Call sends req to p and reads resp, of max bytes at most. The round trip
	// is 0 if this call does not measure it.
	Call(ctx context.Context, p peer.ID, protocol protocol.ID, req, resp proto.Message, max int) (rtt time.Duration, spent overlay.Cost, err error)
}

// Peers learns which nodes answer; see [overlay.Peers].
type Peers interface {
	Answered(p peer.ID, rtt time.Duration)
	Failed(p peer.ID, err error)
}

// A Client asks other nodes by /records/1, except for QUERY, which package seek
// sends, and CLAIM, which package naming sends. It is safe for concurrent use.
type Client struct {
	Overlay  Overlay
	Protocol protocol.ID
	Peers    Peers
	// Open opens a stream for a watch.
	Open func(ctx context.Context, p peer.ID, protocols ...protocol.ID) (network.Stream, error)
	// Wall is the time by the clock to compare with other nodes' times.
	Wall func(now time.Time) time.Time
	Log  *slog.Logger
}

// call sends req to p and reads an answer of max bytes at most.
func (c *Client) call(ctx context.Context, p peer.ID, req *pb.Request, max int) (*pb.Response, time.Duration, error) {
	var resp pb.Response
	rtt, _, err := c.Overlay.Call(ctx, p, c.Protocol, req, &resp, max)
	if err != nil {
		c.Peers.Failed(p, err)
		return nil, 0, err
	}
	return &resp, rtt, nil
}

// Advertise sends entries to p, and returns p's reply, nil if p has refused them
// all, and the round trip, 0 if it is no measurement.
func (c *Client) Advertise(ctx context.Context, p peer.ID, entries []*pb.Entry) (*pb.AdvertiseReply, time.Duration, error) {
	resp, rtt, err := c.call(ctx, p, &pb.Request{Op: &pb.Request_Advertise{Advertise: &pb.Advertise{Entries: entries}}}, maxAdvertiseReply)
	if err != nil {
		return nil, 0, err
	}
	c.Peers.Answered(p, 0) // who takes the acknowledgement in takes the round trip
	if resp.Error != "" {
		c.Log.Debug("records refused", "peer", p, "err", resp.Error)
	}
	return resp.GetAdvertise(), rtt, nil
}

// Fetch asks p for its status, and for most of its own records at most.
func (c *Client) Fetch(ctx context.Context, p peer.ID, most int) (*pb.FetchReply, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, overlay.DialTimeout)
	defer cancel()
	resp, rtt, err := c.call(ctx, p, &pb.Request{Op: &pb.Request_Fetch{Fetch: &pb.Fetch{Max: uint32(most)}}}, maxFetchReply)
	if err != nil {
		return nil, 0, err
	}
	c.Peers.Answered(p, rtt)
	reply := resp.GetFetch()
	if reply == nil {
		return nil, 0, fmt.Errorf("%s answered something else: %.200s", p, resp.Error)
	}
	return reply, rtt, nil
}

// HandOver sends each heir its records, all at the same time, within
// handOverTime; see [holding.Holder.HandOvers].
func (c *Client) HandOver(ctx context.Context, heirs map[peer.ID][]*pb.HandOver) {
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	var wg sync.WaitGroup
	for heir, batches := range heirs {
		wg.Go(func() {
			for _, m := range batches {
				var resp pb.Response
				if _, _, err := c.Overlay.Call(ctx, heir, c.Protocol, &pb.Request{Op: &pb.Request_HandOver{HandOver: m}}, &resp, maxAdvertiseReply); err != nil {
					c.Log.Debug("records not handed over", "peer", heir, "err", err)
					return
				}
				c.Log.Debug("records handed over", "peer", heir, "topic", m.Topic, "records", len(m.Copies), "taken", resp.GetHandOver().GetTaken())
			}
		})
	}
	wg.Wait()
}
