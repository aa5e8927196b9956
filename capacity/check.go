package capacity

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	// Dimensions is the number of dimensions of every coordinate: coordinates
	// of different dimensions have no distance, and serf panics when asked for
	// it.
	Dimensions = 8
	// MaxCount bounds counts of viewers, children and nodes.
	MaxCount = 1_000_000
	// MaxQuantity bounds bit/s, packets/s and counts of a record: sums of a few
	// thousand fit an int64.
	MaxQuantity = 1 << 50

	maxURL       = 256                 // bytes
	maxAddr      = 128                 // bytes of one binary multiaddr
	maxRelease   = 64                  // bytes; a Go pseudo-version fits
	maxFeatures  = 16                  //
	maxTracks    = 8                   // as many as media sections in an offer
	maxID        = 64                  // bytes of a request ID
	maxNeed      = 1 << 40             // bit/s, packets/s of one need
	maxCores     = 1 << 16             //
	maxShare     = 10                  // a measured CPU share can exceed 1 for a moment
	maxSeconds   = 100                 // of a coordinate's components
	maxRTT       = time.Minute         // of a link
	maxDelay     = time.Minute         // by which packets are served late
	maxUnixMilli = 253_402_300_799_999 // the end of the year 9999
)

// Errors of signed values. Each error of the Open functions wraps exactly one
// of these.
var (
	ErrTooLarge    = errors.New("too large")
	ErrMalformed   = errors.New("malformed")
	ErrForged      = errors.New("forged") // bad signature, or by another signer than it names
	ErrExpired     = errors.New("expired")
	ErrFromFuture  = errors.New("from the future")
	ErrWrongTarget = errors.New("meant for another node")
)

// Malformed is an error that wraps ErrMalformed and names the field.
func Malformed(field, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %w", ErrMalformed, field, fmt.Errorf(format, args...))
}

// Check returns nil if every field is within its bounds; else its error wraps
// ErrMalformed and names the field by its JSON key.
func (r *Record) Check() error {
	if err := checkID("node", r.Node); err != nil {
		return err
	}
	if r.Name != "" {
		if err := ValidName(r.Name); err != nil {
			return Malformed("name", "%w", err)
		}
	}
	if r.Seq == 0 {
		return Malformed("seq", "must not be 0")
	}
	if err := CheckTime("issued", r.Issued); err != nil {
		return err
	}
	if r.TTL < time.Millisecond || r.TTL > MaxTTL {
		return Malformed("ttl_ms", "%v is not within 1ms…%v", r.TTL, MaxTTL)
	}
	if err := checkAddrs("addrs", r.Addrs); err != nil {
		return err
	}
	if err := checkURL(r.URL); err != nil {
		return Malformed("url", "%w", err)
	}
	if err := checkHostPort(r.Media); err != nil {
		return Malformed("media", "%w", err)
	}
	if r.State > Full {
		return Malformed("state", "%d is unknown", r.State)
	}
	for _, l := range []struct {
		field, s string
		limit    int
	}{{"region", r.Region, MaxLabel}, {"zone", r.Zone, MaxLabel}, {"release", r.Release, maxRelease}} {
		if err := CheckLabel(l.s, l.limit); err != nil {
			return Malformed(l.field, "%w", err)
		}
	}
	if err := checkCoordinate(r.Coordinate); err != nil {
		return Malformed("coordinate", "%w", err)
	}
	for _, q := range []struct {
		field string
		u     Usage
	}{
		{"uplink", r.Uplink}, {"downlink", r.Downlink}, {"packets", r.Packets},
		{"sessions", r.Sessions}, {"streams", r.Streams}, {"reserved", Usage{Used: r.Reserved}},
	} {
		if q.u.Used < 0 || q.u.Limit < 0 || q.u.Used > MaxQuantity || q.u.Limit > MaxQuantity {
			return Malformed(q.field, "%d of %d is not within 0…%d", q.u.Used, q.u.Limit, int64(MaxQuantity))
		}
	}
	for _, f := range []struct {
		field    string
		x, limit float64
	}{{"cores", r.Cores, maxCores}, {"cpu", r.CPU, maxShare}, {"cpu_limit", r.CPULimit, maxShare}} {
		if !(f.x >= 0 && f.x <= f.limit) { // so that NaN fails
			return Malformed(f.field, "%v is not within 0…%v", f.x, f.limit)
		}
	}
	if r.Delay < 0 || r.Delay > maxDelay {
		return Malformed("delay_ms", "%v is not within 0…%v", r.Delay, maxDelay)
	}
	if err := checkLabels(r.Features, maxFeatures); err != nil {
		return Malformed("features", "%w", err)
	}
	if r.Carries != nil {
		return r.Carries.check(r.Node)
	}
	return nil
}

func (c *StreamInfo) check(node peer.ID) error {
	if err := ValidStreamName(c.Stream); err != nil {
		return Malformed("carries.stream", "%w", err)
	}
	if c.State > Orphan {
		return Malformed("carries.state", "%d is no state of a stream", c.State)
	}
	if len(c.Path) == 0 || len(c.Path) > MaxDepth+1 {
		return Malformed("carries.path", "%d nodes, want 1…%d", len(c.Path), MaxDepth+1)
	}
	for i, id := range c.Path {
		if err := checkID("carries.path", id); err != nil {
			return err
		}
		if slices.Contains(c.Path[:i], id) {
			return Malformed("carries.path", "a loop through %s", id)
		}
	}
	last := len(c.Path) - 1
	if c.Path[last] != node {
		return Malformed("carries.path", "ends at %s, not at the record's node", c.Path[last])
	}
	if c.Depth != last {
		return Malformed("carries.depth", "%d, but the path says %d", c.Depth, last)
	}
	if c.Origin != (last == 0) {
		return Malformed("carries.origin", "%t at depth %d", c.Origin, last)
	}
	parent := peer.ID("")
	if last > 0 {
		parent = c.Path[last-1]
	}
	if c.Parent != parent {
		return Malformed("carries.parent", "%q, but the path says %q", c.Parent, parent)
	}
	if c.ParentRTT < 0 || c.ParentRTT > maxRTT {
		return Malformed("carries.parent_rtt_ms", "%v is not within 0…%v", c.ParentRTT, maxRTT)
	}
	for _, n := range []struct {
		field string
		n     int
	}{{"carries.viewers", c.Viewers}, {"carries.children", c.Children}, {"carries.fanout", c.Fanout}} {
		if n.n < 0 || n.n > MaxCount {
			return Malformed(n.field, "%d is not within 0…%d", n.n, MaxCount)
		}
	}
	if err := checkLabels(c.Tracks, maxTracks); err != nil {
		return Malformed("carries.tracks", "%w", err)
	}
	return nil
}

// ValidName returns nil if s can name a node: 1 to MaxName of [A-Za-z0-9_.-],
// so that a name can neither look like the end of a peer ID nor control a
// terminal.
func ValidName(s string) error {
	if s == "" || len(s) > MaxName {
		return fmt.Errorf("a node's name of %d bytes, want 1…%d", len(s), MaxName)
	}
	return checkNameChars("node", s, s)
}

// ValidStreamName returns nil if s can name a stream: a path of segments of
// [A-Za-z0-9_.-], separated by single slashes, none of them "." or "..", of at
// most MaxStreamName bytes.
func ValidStreamName(s string) error {
	if s == "" {
		return errors.New("a stream name must not be empty")
	}
	if len(s) > MaxStreamName {
		return fmt.Errorf("a stream name of %d bytes, at most %d", len(s), MaxStreamName)
	}
	for segment := range strings.SplitSeq(s, "/") {
		switch segment {
		case "":
			return fmt.Errorf("stream name %q has an empty segment", s)
		case ".", "..":
			return fmt.Errorf("stream name %q has a segment %q", s, segment)
		}
		if err := checkNameChars("stream", segment, s); err != nil {
			return err
		}
	}
	return nil
}

// NameRune reports whether names may contain c.
func NameRune(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("_.-", c)
}

// checkNameChars checks part of the name s of a node or a stream.
func checkNameChars(what, part, s string) error {
	i := strings.IndexFunc(part, func(c rune) bool { return !NameRune(c) })
	if i < 0 {
		return nil
	}
	c, _ := utf8.DecodeRuneInString(part[i:])
	allowed := "letters, digits, _ . and -"
	if what == "stream" {
		allowed = "letters, digits, _ . - and /"
	}
	return fmt.Errorf("%s name %q contains %q; %s may be used", what, s, c, allowed)
}

// checkID accepts the peer IDs of Ed25519 keys, the only ones nodes have. They
// hold the key itself.
func checkID(field string, id peer.ID) error {
	if id == "" {
		return Malformed(field, "peer ID missing")
	}
	key, err := id.ExtractPublicKey()
	if err != nil {
		return Malformed(field, "peer ID: %w", err)
	}
	if key.Type() != crypto.Ed25519 {
		return Malformed(field, "peer ID of an %s key, want Ed25519", key.Type())
	}
	if !id.MatchesPublicKey(key) {
		return Malformed(field, "peer ID in an unusual spelling")
	}
	return nil
}

// CheckTime accepts the years 1970 to 9999.
func CheckTime(field string, t time.Time) error {
	if ms := t.UnixMilli(); ms <= 0 || ms > maxUnixMilli {
		return Malformed(field, "%d ms is not within the years 1970…9999", ms)
	}
	return nil
}

func checkAddrs(field string, addrs []multiaddr.Multiaddr) error {
	if len(addrs) > MaxAddrs {
		return Malformed(field, "%d addresses, at most %d", len(addrs), MaxAddrs)
	}
	for _, a := range addrs {
		if len(a) == 0 {
			return Malformed(field, "an empty address")
		}
		if n := len(a.Bytes()); n > maxAddr {
			return Malformed(field, "an address of %d bytes, at most %d", n, maxAddr)
		}
		if _, err := a.ValueForProtocol(multiaddr.P_P2P); err == nil {
			return Malformed(field, "%s has a /p2p part, which the node's ID makes redundant", a)
		}
	}
	return nil
}

// checkURL accepts "" and an http or https base URL to which a path can be
// appended.
func checkURL(s string) error {
	if s == "" {
		return nil
	}
	if len(s) > maxURL {
		return fmt.Errorf("%d bytes, at most %d", len(s), maxURL)
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return err
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q is not an http or https URL", s)
	case u.Hostname() == "":
		return fmt.Errorf("%q has no host", s)
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return fmt.Errorf("%q has a user, query or fragment", s)
	}
	if err := checkHost(u.Hostname()); err != nil {
		return err
	}
	if p := u.Port(); p != "" {
		return checkPort(p)
	}
	return nil
}

// ErrUnspecifiedAddr means that an address belongs to no particular machine,
// such as 0.0.0.0 or [::]: a peer that dials it reaches itself, if anything.
var ErrUnspecifiedAddr = errors.New("address of no machine in particular")

// checkHost refuses every spelling of the unspecified address; some resolvers
// accept 0 and 0x0 as well.
func checkHost(host string) error {
	ip, err := netip.ParseAddr(host)
	if err == nil && ip.Unmap().IsUnspecified() || err != nil && strings.Trim(host, "0x.") == "" {
		return fmt.Errorf("%q is the %w", host, ErrUnspecifiedAddr)
	}
	return nil
}

// checkHostPort accepts "" and host:port.
func checkHostPort(s string) error {
	if s == "" {
		return nil
	}
	if len(s) > maxURL {
		return fmt.Errorf("%d bytes, at most %d", len(s), maxURL)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return err
	}
	if host == "" {
		return fmt.Errorf("%q has no host", s)
	}
	if err := CheckLabel(host, maxURL); err != nil {
		return err
	}
	if err := checkHost(host); err != nil {
		return err
	}
	return checkPort(port)
}

func checkPort(s string) error {
	if n, err := strconv.ParseUint(s, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q is not within 1…65535", s)
	}
	return nil
}

// CheckLabel accepts printable text on one line, up to limit bytes.
func CheckLabel(s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%d bytes, at most %d", len(s), limit)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%q is not UTF-8", s)
	}
	if i := strings.IndexFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }); i >= 0 {
		return fmt.Errorf("%q contains what cannot be printed", s)
	}
	return nil
}

func checkLabels(labels []string, limit int) error {
	if len(labels) > limit {
		return fmt.Errorf("%d entries, at most %d", len(labels), limit)
	}
	for _, l := range labels {
		if l == "" {
			return errors.New("an empty entry")
		}
		if err := CheckLabel(l, MaxLabel); err != nil {
			return err
		}
	}
	return nil
}

func checkCoordinate(c *coordinate.Coordinate) error {
	if c == nil {
		return nil
	}
	if len(c.Vec) != Dimensions {
		return fmt.Errorf("%d dimensions, want %d", len(c.Vec), Dimensions)
	}
	for _, x := range append(slices.Clone(c.Vec), c.Error, c.Adjustment, c.Height) {
		if !(math.Abs(x) <= maxSeconds) { // so that NaN fails
			return fmt.Errorf("component %v is not within ±%d", x, maxSeconds)
		}
	}
	if c.Error < 0 || c.Height < 0 {
		return fmt.Errorf("error %v or height %v is negative", c.Error, c.Height)
	}
	return nil
}
