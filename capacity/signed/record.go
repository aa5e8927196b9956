package signed

import (
	"fmt"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/pb"
)

// MaxRecordSize bounds a sealed record in bytes; longer ones are refused
// before they are decoded.
const MaxRecordSize = 1024

// SealRecord signs r with key, which must be the node's, and returns a libp2p
// signed envelope (RFC 0002).
//
// It seals only records that [OpenRecord] accepts: the error wraps
// [capacity.ErrMalformed] if a field is out of its bounds,
// [capacity.ErrTooLarge] if the whole is longer than MaxRecordSize, and
// [capacity.ErrForged] if key is not the node's. Resolution: Issued and TTL 1
// ms, ParentRTT 1 µs, CPU 0.0001, Cores 0.001, coordinates float32.
func SealRecord(r capacity.Record, key crypto.PrivKey) ([]byte, error) {
	return recordKind.seal(&r, key)
}

// OpenRecord checks sealed, which may have an update, and returns the record
// inside it.
//
// The error wraps [capacity.ErrTooLarge], [capacity.ErrMalformed],
// [capacity.ErrForged] if the signature is bad or the signer is not the node
// the record names, [capacity.ErrExpired] if the record expired more than
// MaxClockSkew before now, or [capacity.ErrFromFuture] if it was issued more
// than MaxClockSkew after now. A searching caller drops the record and carries
// on whatever the error. OpenRecord keeps no state: the caller compares Seq
// with the records seen before.
func OpenRecord(sealed []byte, now time.Time) (capacity.Record, error) {
	r, err := OpenRecordAnyAge(sealed)
	if err != nil {
		return capacity.Record{}, err
	}
	if err := r.CheckAge(now); err != nil {
		return capacity.Record{}, fmt.Errorf("open record: %w", err)
	}
	return r, nil
}

// OpenRecordAnyAge is [OpenRecord] without the clock: for inspection.
func OpenRecordAnyAge(sealed []byte) (capacity.Record, error) {
	if len(sealed) > MaxRecordSize {
		return capacity.Record{}, fmt.Errorf("open record: %w: %d bytes, at most %d", capacity.ErrTooLarge, len(sealed), MaxRecordSize)
	}
	envelope, update, err := splitUpdate(sealed)
	if err != nil {
		return capacity.Record{}, fmt.Errorf("open record: %w", err)
	}
	r, err := recordKind.open(envelope)
	if err != nil || update == nil {
		return r, err
	}
	if r, err = verified(r, envelope, update); err != nil {
		return capacity.Record{}, fmt.Errorf("open record: %w", err)
	}
	return r, nil
}

// recordToProto converts a record that its Check has passed.
func recordToProto(r *capacity.Record) *pb.Record {
	m := &pb.Record{
		Node:     []byte(r.Node),
		Seq:      r.Seq,
		Issued:   uint64(r.Issued.UnixMilli()),
		Ttl:      uint32(r.TTL.Milliseconds()),
		Addrs:    addrsToBytes(r.Addrs),
		Url:      r.URL,
		Media:    r.Media,
		State:    pb.State(r.State),
		Region:   r.Region,
		Zone:     r.Zone,
		Uplink:   usageToProto(r.Uplink),
		Downlink: usageToProto(r.Downlink),
		Packets:  usageToProto(r.Packets),
		Sessions: usageToProto(r.Sessions),
		Streams:  usageToProto(r.Streams),
		Reserved: uint64(r.Reserved),
		Cores:    uint32(math.Round(r.Cores * 1e3)),
		Cpu:      uint32(math.Round(r.CPU * 1e4)),
		CpuLimit: uint32(math.Round(r.CPULimit * 1e4)),
		Delay:    uint32(r.Delay.Microseconds()),
		Release:  r.Release,
		Features: r.Features,
		Policy:   r.Policy,
		Name:     r.Name,
	}
	m.Coordinate = CoordinateToWire(r.Coordinate)
	if c := r.Carries; c != nil {
		m.Carries = &pb.Carriage{
			Stream:    c.Stream,
			State:     pb.StreamState(c.State),
			ParentRtt: uint32(c.ParentRTT.Microseconds()),
			Viewers:   uint32(c.Viewers),
			Children:  uint32(c.Children),
			Fanout:    uint32(c.Fanout),
			Tracks:    c.Tracks,
		}
		for _, id := range c.Path[:len(c.Path)-1] {
			m.Carries.Upstream = append(m.Carries.Upstream, []byte(id))
		}
	}
	return m
}

func recordFromProto(m *pb.Record, _ peer.ID) (*capacity.Record, error) {
	node, err := peerOf("node", m.Node)
	if err != nil {
		return nil, err
	}
	addrs, err := addrsFromBytes("addrs", m.Addrs)
	if err != nil {
		return nil, err
	}
	carries, err := streamInfoFromProto(m.Carries, node)
	if err != nil {
		return nil, err
	}
	return &capacity.Record{
		Node:       node,
		Name:       m.Name,
		Seq:        m.Seq,
		Issued:     timeOf(m.Issued),
		TTL:        time.Duration(m.Ttl) * time.Millisecond,
		Addrs:      addrs,
		URL:        m.Url,
		Media:      m.Media,
		State:      named[capacity.State](m.State),
		Region:     m.Region,
		Zone:       m.Zone,
		Coordinate: CoordinateFromWire(m.Coordinate),
		Uplink:     usageFromProto(m.Uplink),
		Downlink:   usageFromProto(m.Downlink),
		Packets:    usageFromProto(m.Packets),
		Sessions:   usageFromProto(m.Sessions),
		Streams:    usageFromProto(m.Streams),
		Reserved:   quantity(m.Reserved),
		Cores:      float64(m.Cores) / 1e3,
		CPU:        float64(m.Cpu) / 1e4,
		CPULimit:   float64(m.CpuLimit) / 1e4,
		Delay:      time.Duration(m.Delay) * time.Microsecond,
		Release:    m.Release,
		Features:   m.Features,
		Policy:     m.Policy,
		Carries:    carries,
	}, nil
}

// carriageFromProto decodes node's claim about a stream.
func streamInfoFromProto(c *pb.Carriage, node peer.ID) (*capacity.StreamInfo, error) {
	if c == nil {
		return nil, nil
	}
	if len(c.Upstream) > capacity.MaxDepth {
		return nil, capacity.Malformed("carries.path", "%d nodes upstream, at most %d", len(c.Upstream), capacity.MaxDepth)
	}
	carries := &capacity.StreamInfo{
		Stream:    c.Stream,
		State:     named[capacity.StreamState](c.State),
		Origin:    len(c.Upstream) == 0,
		Depth:     len(c.Upstream),
		ParentRTT: time.Duration(c.ParentRtt) * time.Microsecond,
		Path:      make([]peer.ID, 0, len(c.Upstream)+1),
		Viewers:   int(c.Viewers),
		Children:  int(c.Children),
		Fanout:    int(c.Fanout),
		Tracks:    c.Tracks,
	}
	for _, b := range c.Upstream {
		id, err := peerOf("carries.path", b)
		if err != nil {
			return nil, err
		}
		carries.Path = append(carries.Path, id)
		carries.Parent = id
	}
	carries.Path = append(carries.Path, node)
	return carries, nil
}

func usageToProto(u capacity.Usage) *pb.Usage {
	if u == (capacity.Usage{}) {
		return nil
	}
	return &pb.Usage{Used: uint64(u.Used), Limit: uint64(u.Limit)}
}

func usageFromProto(u *pb.Usage) capacity.Usage {
	return capacity.Usage{Used: quantity(u.GetUsed()), Limit: quantity(u.GetLimit())}
}
