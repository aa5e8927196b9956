package signed

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/capacitytest"
	"weir/capacity/pb"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// The limits of a record's fields that capacity does not export.
const (
	maxURL      = 256
	maxRelease  = 64
	maxFeatures = 16
	maxSeconds  = 100
	maxCores    = 1 << 16
	maxShare    = 10
	maxRTT      = time.Minute
	maxTracks   = 8
	maxID       = 64
	maxAddr     = 128
	maxNeed     = 1 << 40

	maxUnixMilli = 253_402_300_799_999 // the end of the year 9999
)

func mustSeal(tb testing.TB, r capacity.Record, key crypto.PrivKey) []byte {
	tb.Helper()
	sealed, err := SealRecord(r, key)
	if err != nil {
		tb.Fatal(err)
	}
	return sealed
}

// sealRaw signs any message under any label, without Seal's checks.
func sealRaw(tb testing.TB, l label, msg proto.Message, key crypto.PrivKey) []byte {
	tb.Helper()
	envelope, err := record.Seal(payload{l, msg}, key)
	if err != nil {
		tb.Fatal(err)
	}
	sealed, err := envelope.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	return sealed
}

func TestOpenReturnsWhatWasSealed(t *testing.T) {
	full := capacitytest.Record(t, "node")
	carrying := full
	carrying.State = capacity.Draining
	carrying.Carries = capacitytest.StreamInfo(t, full.Node)
	origin := full
	origin.State = capacity.Full
	origin.Carries = &capacity.StreamInfo{Stream: "demo", Origin: true, Path: []peer.ID{full.Node}}
	for _, tt := range []struct {
		name string
		r    capacity.Record
	}{
		{"a typical record", full},
		{"of a relay", carrying},
		{"of an origin", origin},
		{"with nothing but what is required", capacity.Record{Node: full.Node, Seq: 1, Issued: capacitytest.Epoch, TTL: time.Millisecond}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sealed := mustSeal(t, tt.r, capacitytest.Key(t, "node"))
			got, err := OpenRecord(sealed, capacitytest.Epoch)
			if err != nil {
				t.Fatal(err)
			}
			// Coordinates are float32 on the wire.
			want := tt.r
			if want.Coordinate != nil {
				want.Coordinate = want.Coordinate.Clone()
				want.Coordinate.Vec[0] = float64(float32(want.Coordinate.Vec[0]))
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// The wire format must not change unnoticed: nodes of different releases share
// a network. The size is part of the promise.
func TestGolden(t *testing.T) {
	r := capacitytest.Record(t, "golden")
	carrying := r
	carrying.Carries = capacitytest.StreamInfo(t, r.Node)
	lease, err := SealLease(capacitytest.Lease(t), capacitytest.Key(t, "target"))
	if err != nil {
		t.Fatal(err)
	}
	ticket, err := SealTicket(capacitytest.Ticket(t), capacitytest.Key(t, "from"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		file string
		got  []byte
		most int
	}{
		{"record", mustSeal(t, r, capacitytest.Key(t, "golden")), 400},
		{"carriage", mustSeal(t, carrying, capacitytest.Key(t, "golden")), 600},
		{"update", mustSealUpdate(t, mustSeal(t, carrying, capacitytest.Key(t, "golden")), later(carrying), "golden"), 120},
		{"lease", lease, 300},
		{"ticket", []byte(ticket), 600},
	} {
		t.Run(tt.file, func(t *testing.T) {
			if len(tt.got) > tt.most {
				t.Errorf("%d bytes, want at most %d", len(tt.got), tt.most)
			}
			path := filepath.Join("testdata", tt.file+".golden")
			got := hex.Dump(tt.got)
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the wire format has changed; if that is meant, run with -update\ngot:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// A record with the greatest depth and a long name still fits.
func TestDeepestStreamInfoFits(t *testing.T) {
	r := capacitytest.Record(t, "deep")
	r.Carries = capacitytest.StreamInfo(t, r.Node)
	c := r.Carries
	c.Stream = strings.Repeat("s", capacity.MaxStreamName)
	c.Path = nil
	for i := range capacity.MaxDepth {
		c.Path = append(c.Path, capacitytest.ID(t, string(rune('a'+i))))
	}
	c.Depth, c.Parent = capacity.MaxDepth, c.Path[capacity.MaxDepth-1]
	c.Path = append(c.Path, r.Node)
	for len(r.Addrs) < capacity.MaxAddrs {
		r.Addrs = append(r.Addrs, multiaddr.StringCast("/ip6/2001:db8::7/udp/4001/quic-v1"))
	}
	if n := len(mustSeal(t, r, capacitytest.Key(t, "deep"))); n > MaxRecordSize {
		t.Errorf("%d bytes", n)
	}
}

// Every case is one field of an otherwise valid record. Seal and Open refuse
// the same ones.
func TestFieldsOutOfBoundsAreRefused(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	coord := func(change func(*coordinate.Coordinate)) func(*capacity.Record) {
		return func(r *capacity.Record) {
			r.Coordinate = r.Coordinate.Clone()
			change(r.Coordinate)
		}
	}
	carriage := func(change func(*capacity.StreamInfo)) func(*capacity.Record) {
		return func(r *capacity.Record) {
			r.Carries = capacitytest.StreamInfo(t, r.Node)
			change(r.Carries)
		}
	}
	for _, tt := range []struct {
		name   string
		field  string // in the error
		change func(*capacity.Record)
	}{
		{"a record names its node", "node", func(r *capacity.Record) { r.Node = "" }},
		{"a node is a peer ID", "node", func(r *capacity.Record) { r.Node = "not one" }},
		{"seq starts above 0", "seq", func(r *capacity.Record) { r.Seq = 0 }},
		{"the zero time is no time of issue", "issued", func(r *capacity.Record) { r.Issued = time.Time{} }},
		{"the year 10000 is out of reach", "issued", func(r *capacity.Record) { r.Issued = time.UnixMilli(maxUnixMilli + 1) }},
		{"a TTL of 0 is none", "ttl_ms", func(r *capacity.Record) { r.TTL = 0 }},
		{"a TTL is positive", "ttl_ms", func(r *capacity.Record) { r.TTL = -time.Second }},
		{"a TTL has a bound", "ttl_ms", func(r *capacity.Record) { r.TTL = capacity.MaxTTL + time.Millisecond }},
		{"addresses have a bound", "addrs", func(r *capacity.Record) { r.Addrs = slices.Repeat(r.Addrs, 4) }},
		{"an address is not empty", "addrs", func(r *capacity.Record) { r.Addrs = []multiaddr.Multiaddr{nil} }},
		{"an address does not repeat the node", "addrs", func(r *capacity.Record) {
			r.Addrs = []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/203.0.113.7/tcp/4001/p2p/" + r.Node.String())}
		}},
		{"an address has a bound", "addrs", func(r *capacity.Record) {
			r.Addrs = []multiaddr.Multiaddr{multiaddr.StringCast("/dns/" + strings.Repeat("d", maxAddr) + "/tcp/1")}
		}},
		{"a URL has a scheme", "url", func(r *capacity.Record) { r.URL = "sfu.example.net" }},
		{"a URL is of the web", "url", func(r *capacity.Record) { r.URL = "javascript://sfu.example.net/%0Aalert(1)" }},
		{"a URL has a host", "url", func(r *capacity.Record) { r.URL = "http:///whip" }},
		{"a port alone is no host", "url", func(r *capacity.Record) { r.URL = "http://:80" }},
		{"a URL has no user", "url", func(r *capacity.Record) { r.URL = "http://me:secret@sfu.example.net" }},
		{"a URL has no query", "url", func(r *capacity.Record) { r.URL = "http://sfu.example.net/?" }},
		{"a URL has no fragment", "url", func(r *capacity.Record) { r.URL = "http://sfu.example.net/#" }},
		{"a URL is of one machine", "url", func(r *capacity.Record) { r.URL = "http://[::]:8080" }},
		{"of IPv4 too", "url", func(r *capacity.Record) { r.URL = "http://0.0.0.0:8080" }},
		{"however it is written", "url", func(r *capacity.Record) { r.URL = "http://0:8080" }},
		{"or mapped", "url", func(r *capacity.Record) { r.URL = "http://[::ffff:0.0.0.0]" }},
		{"media come to one machine", "media", func(r *capacity.Record) { r.Media = "[::]:8082" }},
		{"a URL has a port that exists", "url", func(r *capacity.Record) { r.URL = "http://sfu.example.net:65536" }},
		{"a URL has no line breaks", "url", func(r *capacity.Record) { r.URL = "http://sfu.example.net/\nSet-Cookie:a" }},
		{"a URL has a bound", "url", func(r *capacity.Record) { r.URL = "http://sfu.example.net/" + strings.Repeat("a", maxURL) }},
		{"media has a port", "media", func(r *capacity.Record) { r.Media = "203.0.113.7" }},
		{"media has a host", "media", func(r *capacity.Record) { r.Media = ":4002" }},
		{"media has a port above 0", "media", func(r *capacity.Record) { r.Media = "203.0.113.7:0" }},
		{"a state has a name", "state", func(r *capacity.Record) { r.State = capacity.Full + 1 }},
		{"a name has a bound", "name", func(r *capacity.Record) { r.Name = strings.Repeat("n", capacity.MaxName+1) }},
		{"a name cannot steer a terminal", "name", func(r *capacity.Record) { r.Name = "n1\x1b[2J" }},
		{"a name cannot look like the end of a peer ID", "name", func(r *capacity.Record) { r.Name = "n1…abcd" }},
		{"a region has a bound", "region", func(r *capacity.Record) { r.Region = strings.Repeat("r", capacity.MaxLabel+1) }},
		{"a zone has a bound", "zone", func(r *capacity.Record) { r.Zone = strings.Repeat("z", capacity.MaxLabel+1) }},
		{"a region can be printed", "region", func(r *capacity.Record) { r.Region = "eu\x1b[2J" }},
		{"a zone is one line", "zone", func(r *capacity.Record) { r.Zone = "a\nb" }},
		{"a release has a bound", "release", func(r *capacity.Record) { r.Release = strings.Repeat("v", maxRelease+1) }},
		{"features have a bound", "features", func(r *capacity.Record) { r.Features = slices.Repeat([]string{"f"}, maxFeatures+1) }},
		{"a feature has a name", "features", func(r *capacity.Record) { r.Features = []string{""} }},
		{"a feature has a bound", "features", func(r *capacity.Record) { r.Features = []string{strings.Repeat("f", capacity.MaxLabel+1)} }},
		{"a coordinate has eight dimensions", "coordinate", coord(func(c *coordinate.Coordinate) { c.Vec = c.Vec[1:] })},
		{"a coordinate is not NaN", "coordinate", coord(func(c *coordinate.Coordinate) { c.Vec[7] = nan })},
		{"a coordinate is finite", "coordinate", coord(func(c *coordinate.Coordinate) { c.Vec[0] = -inf })},
		{"a coordinate's error is not NaN", "coordinate", coord(func(c *coordinate.Coordinate) { c.Error = nan })},
		{"a coordinate's adjustment is finite", "coordinate", coord(func(c *coordinate.Coordinate) { c.Adjustment = inf })},
		{"a coordinate's height is not below the ground", "coordinate", coord(func(c *coordinate.Coordinate) { c.Height = -1 })},
		{"a coordinate is on this planet", "coordinate", coord(func(c *coordinate.Coordinate) { c.Vec[3] = maxSeconds + 1 })},
		{"uplink in use is not negative", "uplink", func(r *capacity.Record) { r.Uplink.Used = -1 }},
		{"an uplink limit is not negative", "uplink", func(r *capacity.Record) { r.Uplink.Limit = -1 }},
		{"downlink has a bound", "downlink", func(r *capacity.Record) { r.Downlink.Used = capacity.MaxQuantity + 1 }},
		{"packets in use are not negative", "packets", func(r *capacity.Record) { r.Packets.Used = -1 }},
		{"sessions are not negative", "sessions", func(r *capacity.Record) { r.Sessions.Used = math.MinInt64 }},
		{"a stream limit has a bound", "streams", func(r *capacity.Record) { r.Streams.Limit = math.MaxInt64 }},
		{"what is reserved is not negative", "reserved", func(r *capacity.Record) { r.Reserved = -1 }},
		{"what is reserved has a bound", "reserved", func(r *capacity.Record) { r.Reserved = capacity.MaxQuantity + 1 }},
		{"cores have a bound", "cores", func(r *capacity.Record) { r.Cores = maxCores + 1 }},
		{"CPU has a bound", "cpu", func(r *capacity.Record) { r.CPU = maxShare + 1 }},
		{"a delay has a bound", "delay_ms", func(r *capacity.Record) { r.Delay = time.Hour }},
		{"a CPU limit has a bound", "cpu_limit", func(r *capacity.Record) { r.CPULimit = maxShare + 1 }},
		{"a carried stream has a name", "carries.stream", carriage(func(c *capacity.StreamInfo) { c.Stream = "" })},
		{"a carried stream has a valid name", "carries.stream", carriage(func(c *capacity.StreamInfo) { c.Stream = "a/../b" })},
		{"a path has no loop", "carries.path", carriage(func(c *capacity.StreamInfo) { c.Path[0] = c.Path[2] })},
		{"a path has no loop upstream", "carries.path", carriage(func(c *capacity.StreamInfo) { c.Path[1] = c.Path[0]; c.Parent = c.Path[0] })},
		{"a path is made of peer IDs", "carries.path", carriage(func(c *capacity.StreamInfo) { c.Path[0] = "nobody" })},
		{"a path has a bound", "carries.path", carriage(func(c *capacity.StreamInfo) {
			node := c.Path[2]
			c.Path = nil
			for i := range capacity.MaxDepth + 1 {
				c.Path = append(c.Path, capacitytest.ID(t, string(rune('a'+i))))
			}
			c.Parent, c.Depth = c.Path[capacity.MaxDepth], capacity.MaxDepth+1
			c.Path = append(c.Path, node)
		})},
		{"a link is not that slow", "carries.parent_rtt_ms", carriage(func(c *capacity.StreamInfo) { c.ParentRTT = maxRTT + time.Second })},
		{"viewers have a bound", "carries", carriage(func(c *capacity.StreamInfo) { c.Viewers = capacity.MaxCount + 1 })},
		{"children have a bound", "carries", carriage(func(c *capacity.StreamInfo) { c.Children = capacity.MaxCount + 1 })},
		{"fan-out has a bound", "carries", carriage(func(c *capacity.StreamInfo) { c.Fanout = capacity.MaxCount + 1 })},
		{"tracks have a bound", "carries.tracks", carriage(func(c *capacity.StreamInfo) { c.Tracks = slices.Repeat([]string{"audio/opus"}, maxTracks+1) })},
		{"a track can be printed", "carries.tracks", carriage(func(c *capacity.StreamInfo) { c.Tracks = []string{"video/\x00"} })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := capacitytest.Key(t, "node")
			r := capacitytest.Record(t, "node")
			tt.change(&r)
			_, err := SealRecord(r, key)
			if !errors.Is(err, capacity.ErrMalformed) || !strings.Contains(err.Error(), tt.field) {
				t.Errorf("Seal: %v, want malformed %s", err, tt.field)
			}
			_, err = OpenRecordAnyAge(sealRaw(t, recordKind.label, recordToProto(&r), key))
			if !errors.Is(err, capacity.ErrMalformed) && !errors.Is(err, capacity.ErrTooLarge) {
				t.Errorf("OpenAnyAge: %v, want malformed %s", err, tt.field)
			}
		})
	}
}

// Values that a Record can hold and the wire cannot are refused before sealing.
func TestSealRefusesContradictions(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*capacity.Record)
	}{
		{"a path ends at the node", func(r *capacity.Record) { r.Carries.Path = r.Carries.Path[:2] }},
		{"a path has at least the node", func(r *capacity.Record) { r.Carries.Path = nil }},
		{"the depth is that of the path", func(r *capacity.Record) { r.Carries.Depth = 1 }},
		{"an origin is at depth 0", func(r *capacity.Record) { r.Carries.Origin = true }},
		{"the parent is on the path", func(r *capacity.Record) { r.Carries.Parent = r.Node }},
		{"viewers are not negative", func(r *capacity.Record) { r.Carries.Viewers = -1 }},
		{"children are not negative", func(r *capacity.Record) { r.Carries.Children = -1 }},
		{"fan-out is not negative", func(r *capacity.Record) { r.Carries.Fanout = -1 }},
		{"an RTT is not negative", func(r *capacity.Record) { r.Carries.ParentRTT = -1 }},
		{"cores are not NaN", func(r *capacity.Record) { r.Cores = math.NaN() }},
		{"CPU is not negative", func(r *capacity.Record) { r.CPU = -0.1 }},
		{"labels are UTF-8", func(r *capacity.Record) { r.Region = "\xff" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := capacitytest.Record(t, "node")
			r.Carries = capacitytest.StreamInfo(t, r.Node)
			tt.change(&r)
			if _, err := SealRecord(r, capacitytest.Key(t, "node")); !errors.Is(err, capacity.ErrMalformed) {
				t.Errorf("Seal: %v, want malformed", err)
			}
		})
	}
	t.Run("a record is signed by its node", func(t *testing.T) {
		if _, err := SealRecord(capacitytest.Record(t, "node"), capacitytest.Key(t, "other")); !errors.Is(err, capacity.ErrForged) {
			t.Errorf("Seal: %v, want forged", err)
		}
	})
	t.Run("a record fits its bound as a whole", func(t *testing.T) {
		r := capacitytest.Record(t, "node")
		r.URL += "/" + strings.Repeat("u", 200)
		r.Features = slices.Repeat([]string{strings.Repeat("f", capacity.MaxLabel)}, maxFeatures)
		if _, err := SealRecord(r, capacitytest.Key(t, "node")); !errors.Is(err, capacity.ErrTooLarge) {
			t.Errorf("Seal: %v, want too large", err)
		}
	})
}

func TestOpenRefusesWhatItCannotTrust(t *testing.T) {
	r := capacitytest.Record(t, "node")
	key := capacitytest.Key(t, "node")
	good := mustSeal(t, r, key)
	rsa, _, err := crypto.GenerateRSAKeyPair(2048, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*pb.Record)) []byte {
		m := recordToProto(&r)
		change(m)
		return sealRaw(t, recordKind.label, m, key)
	}
	for _, tt := range []struct {
		name   string
		sealed []byte
		want   error
	}{
		{"nothing at all", nil, capacity.ErrMalformed},
		{"text", []byte("hello"), capacity.ErrMalformed},
		{"an envelope cut short", good[:len(good)-1], capacity.ErrMalformed},
		{"more than a record may have", append(good, make([]byte, MaxRecordSize)...), capacity.ErrTooLarge},
		{"another node's record under our signature", sealRaw(t, recordKind.label, recordToProto(&r), capacitytest.Key(t, "other")), capacity.ErrForged},
		{"signed for another domain", sealRaw(t, label{"weir-lease", recordKind.label.codec}, recordToProto(&r), key), capacity.ErrForged},
		{"of another payload type", sealRaw(t, label{recordKind.label.domain, leaseKind.label.codec}, recordToProto(&r), key), capacity.ErrMalformed},
		{"a lease", func() []byte { b, _ := SealLease(capacitytest.Lease(t), capacitytest.Key(t, "target")); return b }(), capacity.ErrForged},
		{"a key that is not Ed25519", sealRaw(t, recordKind.label, recordToProto(&r), rsa), capacity.ErrMalformed},
		{"a payload that is no record", sealRaw(t, recordKind.label, &pb.Usage{Used: 1}, key), capacity.ErrMalformed},
		{"an unknown state", with(func(m *pb.Record) { m.State = 9 }), capacity.ErrMalformed},
		{"a negative state", with(func(m *pb.Record) { m.State = -1 }), capacity.ErrMalformed},
		{"a time that would wrap around", with(func(m *pb.Record) { m.Issued = math.MaxUint64 }), capacity.ErrMalformed},
		{"a usage that would turn negative", with(func(m *pb.Record) { m.Uplink = &pb.Usage{Used: math.MaxUint64} }), capacity.ErrMalformed},
		{"a reservation that would turn negative", with(func(m *pb.Record) { m.Reserved = 1 << 63 }), capacity.ErrMalformed},
		{"viewers that would turn negative", with(func(m *pb.Record) { m.Carries = &pb.Carriage{Stream: "s", Viewers: math.MaxUint32} }), capacity.ErrMalformed},
		{"an address that is none", with(func(m *pb.Record) { m.Addrs = [][]byte{{0xff, 0xff}} }), capacity.ErrMalformed},
		{"a node that is no multihash", with(func(m *pb.Record) { m.Node = []byte{1, 2, 3} }), capacity.ErrMalformed},
		{"itself upstream", with(func(m *pb.Record) {
			m.Carries = &pb.Carriage{Stream: "s", Upstream: [][]byte{[]byte(r.Node)}}
		}), capacity.ErrMalformed},
		{"a hundred upstream", with(func(m *pb.Record) {
			m.Carries = &pb.Carriage{Stream: "s", Upstream: make([][]byte, 100)}
		}), capacity.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := OpenRecordAnyAge(tt.sealed); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestNoBitOfARecordCanBeFlipped(t *testing.T) {
	sealed := mustSeal(t, capacitytest.Record(t, "node"), capacitytest.Key(t, "node"))
	for bit := range 8 * len(sealed) {
		b := slices.Clone(sealed)
		b[bit/8] ^= 1 << (bit % 8)
		if r, err := OpenRecord(b, capacitytest.Epoch); err == nil {
			t.Errorf("bit %d: opened as %+v", bit, r)
		}
	}
}

func TestRecordsAreOpenedWithinTheirTime(t *testing.T) {
	r := capacitytest.Record(t, "node")
	sealed := mustSeal(t, r, capacitytest.Key(t, "node"))
	end := r.Expires()
	for _, tt := range []struct {
		name string
		now  time.Time
		want error
	}{
		{"when issued", r.Issued, nil},
		{"at the end", end, nil},
		{"past the end by the skew allowed", end.Add(capacity.MaxClockSkew), nil},
		{"past the end by more: a replay", end.Add(capacity.MaxClockSkew + time.Millisecond), capacity.ErrExpired},
		{"a year later: a replay", end.AddDate(1, 0, 0), capacity.ErrExpired},
		{"before issue by the skew allowed", r.Issued.Add(-capacity.MaxClockSkew), nil},
		{"before issue by more", r.Issued.Add(-capacity.MaxClockSkew - time.Millisecond), capacity.ErrFromFuture},
		{"by a clock that was never set", time.Unix(0, 0), capacity.ErrFromFuture},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := OpenRecord(sealed, tt.now)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err != nil && !reflect.DeepEqual(got, capacity.Record{}) {
				t.Errorf("an error, and yet %+v", got)
			}
		})
	}
}

func TestValidStreamName(t *testing.T) {
	for _, tt := range []struct {
		name, stream string
		valid        bool
	}{
		{"a word", "demo", true},
		{"a path", "conference/2026/main-stage", true},
		{"all that may be used", "AZaz09_.-", true},
		{"dots within a segment", "..a/b..", true},
		{"the longest", strings.Repeat("s", capacity.MaxStreamName), true},
		{"one byte too many", strings.Repeat("s", capacity.MaxStreamName+1), false},
		{"nothing", "", false},
		{"a slash in front", "/demo", false},
		{"a slash behind", "demo/", false},
		{"two slashes", "a//b", false},
		{"up", "a/../b", false},
		{"here", "./a", false},
		{"a space", "a b", false},
		{"a percent sign", "a%2fb", false},
		{"a query", "a?ticket=b", false},
		{"a letter beyond ASCII", "bühne", false},
		{"a line break", "a\nb", false},
		{"what is not UTF-8", "a\xff", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := capacity.ValidStreamName(tt.stream); (err == nil) != tt.valid {
				t.Errorf("ValidStreamName(%q) = %v", tt.stream, err)
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	r := capacitytest.Record(f, "node")
	f.Add(mustSeal(f, r, capacitytest.Key(f, "node")))
	r.Carries = capacitytest.StreamInfo(f, r.Node)
	f.Add(mustSeal(f, r, capacitytest.Key(f, "node")))
	payload, err := proto.Marshal(recordToProto(&r))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Add([]byte{})
	key, id := capacitytest.Key(f, "node"), []byte(r.Node)
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if r, err := OpenRecordAnyAge(sealed); err == nil {
			if err := r.Check(); err != nil {
				t.Fatalf("opened, but %v", err)
			}
		}
		// Sign any payload, because the fuzzer cannot sign.
		var m pb.Record
		if len(sealed) > MaxRecordSize || proto.Unmarshal(sealed, &m) != nil {
			return
		}
		m.Node = id
		r, err := OpenRecordAnyAge(sealRaw(t, recordKind.label, &m, key))
		if err != nil {
			return
		}
		again, err := SealRecord(r, key)
		if errors.Is(err, capacity.ErrTooLarge) {
			return // unusual encodings of the same values can be shorter
		}
		if err != nil {
			t.Fatalf("what was opened cannot be sealed: %v", err)
		}
		same, err := OpenRecordAnyAge(again)
		if err != nil || !reflect.DeepEqual(same, r) {
			t.Fatalf("sealed again %+v, %v, want %+v", same, err, r)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	r, key := capacitytest.Record(b, "node"), capacitytest.Key(b, "node")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := SealRecord(r, key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	sealed := mustSeal(b, capacitytest.Record(b, "node"), capacitytest.Key(b, "node"))
	b.ReportAllocs()
	b.ReportMetric(float64(len(sealed)), "bytes")
	for b.Loop() {
		if _, err := OpenRecord(sealed, capacitytest.Epoch); err != nil {
			b.Fatal(err)
		}
	}
}
