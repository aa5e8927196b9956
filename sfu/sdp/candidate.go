package sdp

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A Candidate is a usable remote ICE candidate (RFC 8839, section 5.1).
type Candidate struct {
	foundation string
	priority   uint32
	addr       netip.AddrPort
	typ        string
}

// TooMany is the reason of an unused candidate beyond the bound.
const TooMany = "over the bound"

// String returns the candidate as the value of a=candidate.
func (c Candidate) String() string {
	related := ""
	if c.typ != "host" {
		related = " raddr 0.0.0.0 rport 0"
	}
	return fmt.Sprintf("%s 1 udp %d %s %d typ %s%s", c.foundation, c.priority, c.addr.Addr(), c.addr.Port(), c.typ, related)
}

// parseCandidate parses the value of a=candidate. Why is the reason if the
// candidate is of no use: over TCP clients connect to us, names and zones are
// only valid at the other end, and RTCP has no component of its own.
func parseCandidate(value string) (c Candidate, why string) {
	f := strings.Fields(value)
	if len(f) < 8 || !strings.EqualFold(f[6], "typ") || notToken(f[0]) || len(f[0]) > 32 {
		return c, "malformed"
	}
	priority, err := strconv.ParseUint(f[3], 10, 32)
	port, err2 := strconv.ParseUint(f[5], 10, 16)
	addr, err3 := netip.ParseAddr(f[4])
	switch {
	case strings.EqualFold(f[2], "tcp"):
		return c, "TCP"
	case !strings.EqualFold(f[2], "udp"):
		return c, "unknown transport"
	case f[1] != "1":
		return c, "RTCP"
	case err != nil || err2 != nil || port == 0:
		return c, "malformed"
	case err3 != nil:
		return c, "a name"
	case addr.Zone() != "":
		return c, "an address with a zone"
	}
	c = Candidate{foundation: f[0], priority: uint32(priority), addr: netip.AddrPortFrom(addr.Unmap(), uint16(port)), typ: strings.ToLower(f[7])}
	if !slices.Contains([]string{"host", "srflx", "prflx", "relay"}, c.typ) {
		return c, "unknown type"
	}
	return c, ""
}
