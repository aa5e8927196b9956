package model

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	cpb "weir/capacity/pb"
	"weir/capacity/signed"
	"weir/dht"
	"weir/dht/pb"
	"weir/dht/place"
)

// Sizes are message sizes in bytes: with the length prefix, and for those on
// streams the protocol negotiation.
type Sizes struct {
	Record float64 `json:"record"` // sealed

	Advertise      float64 `json:"advertise"` // of one record
	AdvertiseReply float64 `json:"advertise_reply"`
	Datagram       float64 `json:"datagram"` // with the changed fields of one record
	Asking         float64 `json:"asking"`   // the same, with a request to confirm
	Answer         float64 `json:"answer"`   // to a datagram to be confirmed
	Query          float64 `json:"query"`    // without offers
	QueryReply     float64 `json:"query_reply"`
	Offer          float64 `json:"offer"` // each
	Fetch          float64 `json:"fetch"` // of a coordinate alone
	FetchReply     float64 `json:"fetch_reply"`
	Reserve        float64 `json:"reserve"`
	ReserveReply   float64 `json:"reserve_reply"` // with the record

	RedisSet    float64 `json:"redis_set"`    // SET with PX and its answer
	RedisRead   float64 `json:"redis_read"`   // the call of the script that returns all
	RedisRecord float64 `json:"redis_record"` // one record in its answer
}

// networkID is the number of its bytes before every datagram.
const networkID = 8

// SizesOf makes one of each message and measures it.
func SizesOf() (Sizes, error) {
	var s Sizes
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		return s, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return s, err
	}
	addr, err := multiaddr.NewMultiaddr("/ip4/192.0.2.1/udp/4001/quic-v1")
	if err != nil {
		return s, err
	}
	now := time.UnixMilli(1_800_000_000_000)
	at := coordinate.NewCoordinate(coordinate.DefaultConfig())
	for i := range at.Vec {
		at.Vec[i] = 0.01 * float64(i+1)
	}
	record := capacity.Record{
		Node: id, Seq: uint64(now.UnixMilli()), Issued: now, TTL: capacity.DefaultTTL, Addrs: []multiaddr.Multiaddr{addr},
		URL: "http://192.0.2.1:8080", Media: "192.0.2.1:8443", Region: "region-1", Coordinate: at, Cores: 4, CPU: 0.5, CPULimit: 0.8,
		Uplink: capacity.Usage{Used: 7e8, Limit: 1e9}, Packets: capacity.Usage{Used: 84_000, Limit: 150_000},
		Sessions: capacity.Usage{Used: 2, Limit: 500}, Reserved: 2e7, Release: "lab",
	}
	sealed, err := signed.SealRecord(record, key)
	if err != nil {
		return s, err
	}
	delta, err := signed.SealUpdate(record, sealed, record, key)
	if err != nil {
		return s, err
	}
	need := &cpb.Need{Uplink: 2e7, Packets: 2_500}
	topic := string(dht.ShardTopic("region-1", ""))
	here := &cpb.Coordinate{Error: 0.1, Adjustment: 0.01, Height: 0.001}
	for _, x := range at.Vec {
		here.Vec = append(here.Vec, float32(x))
	}
	lease, err := signed.SealLease(capacity.Lease{ID: strings.Repeat("0", 16), Target: id, From: id, Need: capacity.Need{Uplink: 2e7, Packets: 2_500}, Expires: now}, key)
	if err != nil {
		return s, err
	}
	entry := &pb.Entry{Topic: topic, Sealed: sealed, Known: make([]byte, 4*holders)}
	headroom := uint64(3e8)
	offers := func(count int) *pb.Response {
		reply := &pb.QueryReply{Held: uint32(count), Rejected: []*pb.Rejected{{Rule: "state", Count: 1}}}
		for range count {
			reply.Digests = append(reply.Digests, &pb.Digest{
				Node: []byte(id), Seq: record.Seq, Age: 1_000, Stress: 7_000, Headroom: &headroom, Rtt: 60_000,
				Terms: []float32{0.3, 0.4, 0.5, 0}, Addrs: [][]byte{addr.Bytes()},
			})
		}
		return &pb.Response{Op: &pb.Response_Query{Query: reply}}
	}
	records := func(m proto.Message) float64 { return onStream("records", m) }
	s.Record = float64(len(sealed))
	s.Advertise = records(&pb.Request{Op: &pb.Request_Advertise{Advertise: &pb.Advertise{Entries: []*pb.Entry{entry}}}})
	results := []*pb.Result{{Held: 100}}
	s.AdvertiseReply = records(&pb.Response{Op: &pb.Response_Advertise{Advertise: &pb.AdvertiseReply{Results: results, Coordinate: here}}})
	datagram := func(m *pb.Datagram) float64 { return float64(networkID + proto.Size(m)) }
	s.Datagram = datagram(&pb.Datagram{Entries: []*pb.Entry{{Topic: topic, Update: delta}}})
	s.Asking = datagram(&pb.Datagram{Entries: []*pb.Entry{{Topic: topic, Update: delta, Known: entry.Known}}, Id: 1_000})
	s.Answer = datagram(&pb.Datagram{Answer: &pb.AdvertiseReply{Results: results}, Answers: 1_000})
	s.Query = records(&pb.Request{Op: &pb.Request_Query{Query: &pb.Query{Topic: topic, Need: need, Origin: here, Limit: place.OfferLimit}}})
	s.QueryReply, s.Offer = records(offers(0)), records(offers(2))-records(offers(1))
	s.Fetch = records(&pb.Request{Op: &pb.Request_Fetch{Fetch: &pb.Fetch{}}})
	s.FetchReply = records(&pb.Response{Op: &pb.Response_Fetch{Fetch: &pb.FetchReply{Coordinate: here}}})
	s.Reserve = onStream("reserve", &pb.ReserveRequest{Op: &pb.ReserveRequest_Reserve{Reserve: &pb.Reserve{Id: strings.Repeat("0", 16), Need: need, Topic: topic}}})
	s.ReserveReply = onStream("reserve", &pb.ReserveResponse{Lease: lease, Record: sealed, Use: signed.EncodeLoad(&record)})
	redisKey := len("weir:") + len(id)
	s.RedisSet = float64(len("*5\r\n$3\r\nset\r\n") + bulk(redisKey) + bulk(len(sealed)) + len("$2\r\npx\r\n") + bulk(len("15000")) + len("+OK\r\n"))
	s.RedisRead = float64(len("*4\r\n") + bulk(len("evalsha")) + bulk(40) + bulk(1) + bulk(len("weir:*")))
	s.RedisRecord = float64(bulk(len(sealed)))
	return s, nil
}

// reply is the size of a holder's answer with a number of offers.
func (s *Sizes) reply(offers int) float64 { return s.QueryReply + float64(offers)*s.Offer }

// onStream is m's size on a stream of the protocol called name: m and its
// length, and in its direction the two lines by which multistream-select
// negotiates the protocol.
func onStream(name string, m proto.Message) float64 {
	line := func(n int) int { return varint(n+1) + n + 1 }
	size := proto.Size(m)
	protocol := "/weir/" + dht.NetworkID("lab") + "/" + name + "/1"
	return float64(varint(size) + size + line(len("/multistream/1.0.0")) + line(len(protocol)))
}

func varint(n int) int {
	bytes := 1
	for ; n >= 0x80; n >>= 7 {
		bytes++
	}
	return bytes
}

// bulk is the size of a string of n bytes in Redis's protocol.
func bulk(n int) int { return len(fmt.Sprintf("$%d\r\n", n)) + n + 2 }
