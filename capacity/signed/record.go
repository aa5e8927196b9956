package signed

import (
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/pb"
)

// MaxRecordSize bounds a sealed record in bytes; longer ones are refused
// before they are decoded.
const MaxRecordSize = 1024

// SealRecord signs r with key, which must be the node's, and returns a libp2p signed
// envelope (RFC 0002).
//
// What is sealed is what [OpenRecord] accepts: the error wraps [capacity.ErrMalformed] if a
// field is out of its bounds, [capacity.ErrTooLarge] if the whole is longer than
// MaxRecordSize, and [capacity.ErrForged] if key is not the node's. Resolution: Issued
// and TTL 1 ms, ParentRTT 1 µs, CPU 0.0001, Cores 0.001, coordinates float32.
func SealRecord(r capacity.Record, key crypto.PrivKey) ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("seal record: %w", err)
	}
	sealed, err := seal(recordKind, recordToProto(&r), r.Node, key, MaxRecordSize)
	if err != nil {
		return nil, fmt.Errorf("seal record: %w", err)
	}
	return sealed, nil
}

// OpenRecord checks sealed, which may be amended, and returns the record inside it.
//
// The error wraps [capacity.ErrTooLarge], [capacity.ErrMalformed], [capacity.ErrForged] if the signature
// is bad or the signer is not the node the record names, [capacity.ErrExpired] if the
// record ran out more than MaxClockSkew before now, or [capacity.ErrFromFuture] if it
// was issued more than MaxClockSkew after now. A caller that is searching drops
// the record and carries on whatever the error. Open keeps no memory: that a
// record is older than one seen before (Seq) is for the caller to see.
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
	r, err := openAmended(sealed)
	if err != nil {
		return capacity.Record{}, fmt.Errorf("open record: %w", err)
	}
	return r, nil
}

func openAmended(sealed []byte) (capacity.Record, error) {
	if len(sealed) > MaxRecordSize {
		return capacity.Record{}, fmt.Errorf("%w: %d bytes, at most %d", capacity.ErrTooLarge, len(sealed), MaxRecordSize)
	}
	envelope, amendment, err := splitAmended(sealed)
	if err != nil {
		return capacity.Record{}, err
	}
	var msg pb.Record
	signer, err := open(recordKind, envelope, &msg, MaxRecordSize)
	if err != nil {
		return capacity.Record{}, err
	}
	r, err := recordFromProto(&msg)
	if err != nil {
		return capacity.Record{}, err
	}
	if signer != r.Node {
		return capacity.Record{}, fmt.Errorf("%w: names %s, signed by %s", capacity.ErrForged, r.Node, signer)
	}
	if amendment == nil {
		return r, nil
	}
	return amended(r, envelope, amendment)
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
		Release:  r.Release,
		Features: r.Features,
		Policy:   r.Policy,
		Name:     r.Name,
	}
	m.Coordinate = coordinateToProto(r.Coordinate)
	if c := r.Carries; c != nil {
		m.Carries = &pb.Carriage{
			Stream:    c.Stream,
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

// recordFromProto converts m and checks every field; what it returns is valid.
func recordFromProto(m *pb.Record) (capacity.Record, error) {
	// Bounded before converted: a time.Time or int64 must not wrap around.
	if m.Issued > capacity.MaxUnixMilli {
		return capacity.Record{}, capacity.Malformed("issued", "%d ms is past the year 9999", m.Issued)
	}
	for _, q := range []struct {
		field string
		u     *pb.Usage
	}{
		{"uplink", m.Uplink}, {"downlink", m.Downlink}, {"packets", m.Packets},
		{"sessions", m.Sessions}, {"streams", m.Streams}, {"reserved", &pb.Usage{Used: m.Reserved}},
	} {
		if q.u.GetUsed() > capacity.MaxQuantity || q.u.GetLimit() > capacity.MaxQuantity {
			return capacity.Record{}, capacity.Malformed(q.field, "%d of %d is more than %d", q.u.GetUsed(), q.u.GetLimit(), int64(capacity.MaxQuantity))
		}
	}
	if m.State < 0 || m.State > pb.State(capacity.Full) {
		return capacity.Record{}, capacity.Malformed("state", "%d is unknown", m.State)
	}
	if len(m.Addrs) > capacity.MaxAddrs {
		return capacity.Record{}, capacity.Malformed("addrs", "%d addresses, at most %d", len(m.Addrs), capacity.MaxAddrs)
	}
	node, err := idFromBytes("node", m.Node)
	if err != nil {
		return capacity.Record{}, err
	}
	addrs, err := addrsFromBytes("addrs", m.Addrs)
	if err != nil {
		return capacity.Record{}, err
	}
	r := capacity.Record{
		Node:     node,
		Name:     m.Name,
		Seq:      m.Seq,
		Issued:   time.UnixMilli(int64(m.Issued)).UTC(),
		TTL:      time.Duration(m.Ttl) * time.Millisecond,
		Addrs:    addrs,
		URL:      m.Url,
		Media:    m.Media,
		State:    capacity.State(m.State),
		Region:   m.Region,
		Zone:     m.Zone,
		Uplink:   usageFromProto(m.Uplink),
		Downlink: usageFromProto(m.Downlink),
		Packets:  usageFromProto(m.Packets),
		Sessions: usageFromProto(m.Sessions),
		Streams:  usageFromProto(m.Streams),
		Reserved: int64(m.Reserved),
		Cores:    float64(m.Cores) / 1e3,
		CPU:      float64(m.Cpu) / 1e4,
		CPULimit: float64(m.CpuLimit) / 1e4,
		Release:  m.Release,
		Features: m.Features,
		Policy:   m.Policy,
	}
	if c := m.Coordinate; c != nil {
		if r.Coordinate, err = coordinateFromProto(c); err != nil {
			return capacity.Record{}, err
		}
	}
	if c := m.Carries; c != nil {
		if len(c.Upstream) > capacity.MaxDepth {
			return capacity.Record{}, capacity.Malformed("carries.path", "%d nodes upstream, at most %d", len(c.Upstream), capacity.MaxDepth)
		}
		if max(c.Viewers, c.Children, c.Fanout) > capacity.MaxCount {
			return capacity.Record{}, capacity.Malformed("carries", "a count is more than %d", capacity.MaxCount)
		}
		r.Carries = &capacity.Carriage{
			Stream:    c.Stream,
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
			id, err := idFromBytes("carries.path", b)
			if err != nil {
				return capacity.Record{}, err
			}
			r.Carries.Path = append(r.Carries.Path, id)
			r.Carries.Parent = id
		}
		r.Carries.Path = append(r.Carries.Path, node)
	}
	if err := r.Check(); err != nil {
		return capacity.Record{}, err
	}
	return r, nil
}

func coordinateToProto(c *coordinate.Coordinate) *pb.Coordinate {
	if c == nil {
		return nil
	}
	m := &pb.Coordinate{
		Vec:        make([]float32, len(c.Vec)),
		Error:      float32(c.Error),
		Adjustment: float32(c.Adjustment),
		Height:     float32(c.Height),
	}
	for i, x := range c.Vec {
		m.Vec[i] = float32(x)
	}
	return m
}

func coordinateFromProto(m *pb.Coordinate) (*coordinate.Coordinate, error) {
	if len(m.Vec) != capacity.Dimensions {
		return nil, capacity.Malformed("coordinate", "%d dimensions, want %d", len(m.Vec), capacity.Dimensions)
	}
	c := &coordinate.Coordinate{
		Vec:        make([]float64, capacity.Dimensions),
		Error:      float64(m.Error),
		Adjustment: float64(m.Adjustment),
		Height:     float64(m.Height),
	}
	for i, x := range m.Vec {
		c.Vec[i] = float64(x)
	}
	return c, nil
}

func usageToProto(u capacity.Usage) *pb.Usage {
	if u == (capacity.Usage{}) {
		return nil
	}
	return &pb.Usage{Used: uint64(u.Used), Limit: uint64(u.Limit)}
}

func usageFromProto(u *pb.Usage) capacity.Usage {
	return capacity.Usage{Used: int64(u.GetUsed()), Limit: int64(u.GetLimit())}
}
