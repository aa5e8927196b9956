package capacity

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// recordJSON is a Record in the admin API, the CLI and the console.
type recordJSON struct {
	Node       peer.ID         `json:"node,omitempty"`
	Name       string          `json:"name"`
	Seq        uint64          `json:"seq"`
	Issued     time.Time       `json:"issued"`
	TTL        float64         `json:"ttl_ms"`
	Addrs      []string        `json:"addrs"`
	URL        string          `json:"url"`
	Media      string          `json:"media"`
	State      State           `json:"state"`
	Region     string          `json:"region"`
	Zone       string          `json:"zone"`
	Coordinate *coordinateJSON `json:"coordinate"`
	Uplink     Usage           `json:"uplink"`
	Downlink   Usage           `json:"downlink"`
	Cores      float64         `json:"cores"`
	CPU        float64         `json:"cpu"`
	CPULimit   float64         `json:"cpu_limit"`
	Delay      float64         `json:"delay_ms"`
	Packets    Usage           `json:"packets"`
	Sessions   Usage           `json:"sessions"`
	Streams    Usage           `json:"streams"`
	Reserved   int64           `json:"reserved"`
	Stress     float64         `json:"stress"`
	Release    string          `json:"release"`
	Features   []string        `json:"features"`
	Policy     uint64          `json:"policy"`
	Carries    *StreamInfo     `json:"carries,omitempty"`
}

// coordinateJSON has the resolution of a sealed coordinate; in seconds, except
// for Error.
type coordinateJSON struct {
	Vec        []float32 `json:"vec"`
	Error      float32   `json:"error"`
	Adjustment float32   `json:"adjustment"`
	Height     float32   `json:"height"`
}

// MarshalJSON adds the stress, which follows from the fields, and writes empty
// lists as [].
func (r Record) MarshalJSON() ([]byte, error) {
	j := recordJSON{
		Node: r.Node, Name: r.Name, Seq: r.Seq, Issued: r.Issued, TTL: Milliseconds(r.TTL),
		Addrs: []string{}, URL: r.URL, Media: r.Media,
		State: r.State, Region: r.Region, Zone: r.Zone,
		Uplink: r.Uplink, Downlink: r.Downlink, Cores: r.Cores, CPU: r.CPU, CPULimit: r.CPULimit, Delay: Milliseconds(r.Delay),
		Packets: r.Packets, Sessions: r.Sessions, Streams: r.Streams, Reserved: r.Reserved,
		Stress: math.Round(r.Stress()*1e4) / 1e4, Release: r.Release, Features: r.Features, Policy: r.Policy,
		Carries: r.Carries,
	}
	for _, a := range r.Addrs {
		j.Addrs = append(j.Addrs, a.String())
	}
	if j.Features == nil {
		j.Features = []string{}
	}
	if c := r.Coordinate; c != nil {
		j.Coordinate = &coordinateJSON{Vec: []float32{}, Error: float32(c.Error), Adjustment: float32(c.Adjustment), Height: float32(c.Height)}
		for _, x := range c.Vec {
			j.Coordinate.Vec = append(j.Coordinate.Vec, float32(x))
		}
	}
	return json.Marshal(j)
}

// UnmarshalJSON decodes the output of MarshalJSON. It accepts any values that
// fit the types: only [signed.OpenRecord] makes sure that a record is valid.
func (r *Record) UnmarshalJSON(b []byte) error {
	var j recordJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	ttl, err := FromMilliseconds("ttl_ms", j.TTL)
	if err != nil {
		return err
	}
	delay, err := FromMilliseconds("delay_ms", j.Delay)
	if err != nil {
		return err
	}
	var addrs []multiaddr.Multiaddr
	for _, s := range j.Addrs {
		a, err := multiaddr.NewMultiaddr(s)
		if err != nil {
			return fmt.Errorf("addrs: %w", err)
		}
		addrs = append(addrs, a)
	}
	*r = Record{
		Node: j.Node, Name: j.Name, Seq: j.Seq, Issued: j.Issued, TTL: ttl,
		Addrs: addrs, URL: j.URL, Media: j.Media,
		State: j.State, Region: j.Region, Zone: j.Zone,
		Uplink: j.Uplink, Downlink: j.Downlink, Cores: j.Cores, CPU: j.CPU, CPULimit: j.CPULimit, Delay: delay,
		Packets: j.Packets, Sessions: j.Sessions, Streams: j.Streams, Reserved: j.Reserved,
		Release: j.Release, Policy: j.Policy,
		Carries: j.Carries,
	}
	if len(j.Features) > 0 {
		r.Features = j.Features
	}
	if c := j.Coordinate; c != nil {
		r.Coordinate = &coordinate.Coordinate{Vec: []float64{}, Error: float64(c.Error), Adjustment: float64(c.Adjustment), Height: float64(c.Height)}
		for _, x := range c.Vec {
			r.Coordinate.Vec = append(r.Coordinate.Vec, float64(x))
		}
	}
	return nil
}

// streamInfoFields is a StreamInfo without its methods.
type streamInfoFields StreamInfo

type streamInfoJSON struct {
	streamInfoFields
	ParentRTT float64 `json:"parent_rtt_ms"`
}

// MarshalJSON writes ParentRTT as parent_rtt_ms.
func (c StreamInfo) MarshalJSON() ([]byte, error) {
	j := streamInfoJSON{streamInfoFields(c), Milliseconds(c.ParentRTT)}
	if j.Path == nil {
		j.Path = []peer.ID{}
	}
	if j.Tracks == nil {
		j.Tracks = []string{}
	}
	return json.Marshal(j)
}

// UnmarshalJSON decodes the output of MarshalJSON.
func (c *StreamInfo) UnmarshalJSON(b []byte) error {
	var j streamInfoJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	rtt, err := FromMilliseconds("parent_rtt_ms", j.ParentRTT)
	if err != nil {
		return err
	}
	*c = StreamInfo(j.streamInfoFields)
	c.ParentRTT = rtt
	if len(c.Path) == 0 {
		c.Path = nil
	}
	if len(c.Tracks) == 0 {
		c.Tracks = nil
	}
	return nil
}

// Milliseconds is d in ms for JSON, rounded to the microsecond.
func Milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func FromMilliseconds(field string, ms float64) (time.Duration, error) {
	const most = float64(math.MaxInt64 / int64(time.Millisecond))
	if math.Abs(ms) >= most {
		return 0, fmt.Errorf("%s: %v is out of range", field, ms)
	}
	return time.Duration(math.Round(ms * float64(time.Millisecond))), nil
}
