package forward

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pion/rtp"

	"weir/sfu/layer"
)

// Bounds of a ring: what is older than ringTime goes, and earlier if the ring
// has more bytes or packets than these.
const (
	ringTime    = 4 * time.Second
	ringBytes   = 4 << 20
	ringPackets = 4096
	// ringStart is the number of slots of a new ring; a power of two, and a part
	// of ringPackets.
	ringStart = 64
	// chunkSize is how many bytes the ring allocates at once.
	chunkSize = 32 << 10
)

// A source is one numbering of packets: an UpTrack has a new one each time that
// its packets begin to be numbered anew.
type source struct {
	up         *UpTrack
	exts       []extension
	descriptor uint8        // ID of the dependency descriptor; 0: none
	layers     layer.Parser // used by the goroutine that calls [UpTrack.Forward]
}

// descriptorURI is the dependency descriptor (AV1 RTP specification, appendix
// A).
const descriptorURI = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"

// parse reads the layers of a packet.
func (s *source) parse(p *rtp.Packet) layer.Info {
	var descriptor []byte
	if s.descriptor != 0 && p.Extension {
		descriptor = p.GetExtension(s.descriptor)
	}
	return s.layers.Parse(p.Payload, descriptor)
}

// An extension is a header extension by its ID in a source's packets.
type extension struct {
	id  uint8
	uri string
}

func newSource(u *UpTrack, exts map[uint8]string) *source {
	s := &source{up: u, layers: layer.NewParser(u.track.Codec.MimeType)}
	for _, id := range slices.Sorted(maps.Keys(exts)) {
		if exts[id] == descriptorURI {
			s.descriptor = id
		}
		s.exts = append(s.exts, extension{id, exts[id]})
	}
	return s
}

// A ring holds the last packets of a track: the only copy, which all its
// DownTracks send and repair from.
//
// Each packet has a position. Positions of one source are as far apart as its
// sequence numbers; those of the next source follow the highest. The zero value
// is ready.
type ring struct {
	mu         sync.Mutex
	slots      []kept // by position, modulo their number, which is a power of two
	tail, next uint64 // positions that are kept: from tail, before next
	bytes      int
	source     *source
	seq        uint16 // sequence number of source at position next-1
	chunk      []byte // the unused rest
}

// kept is a packet of a ring. Its data never changes, and its padding not once it
// is sent, so that whoever has got a copy of kept may use it without a lock, and
// for longer than the ring keeps it.
type kept struct {
	position    uint64 // 0: none
	source      *source
	at          time.Time // when it was received
	data        []byte    // extensions, each as ID, length and value, then the payload
	extended    uint16    // length of the extensions in data
	seq         uint16    // of source
	timestamp   uint32    // of source
	marker, key bool
	late        bool  // a later one came before
	padding     uint8 // bytes to send behind the payload
	info        layer.Info
}

func (k *kept) payload() []byte { return k.data[k.extended:] }

// put keeps p, received from s at now. It reports false for a packet whose
// number was taken before, and for one older than all that is kept.
func (r *ring) put(s *source, p *rtp.Packet, info layer.Info, key bool, now time.Time) (kept, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slots == nil {
		r.slots = make([]kept, ringStart)
		r.tail, r.next = ringPackets, ringPackets // so that none before is below 0
	}
	ahead := int16(p.SequenceNumber - r.seq)
	if r.source != s {
		r.source, ahead = s, 1
	}
	position := r.next - 1 + uint64(ahead) // wraps around where ahead is negative
	switch {
	case ahead > 0:
		r.seq, r.next = p.SequenceNumber, position+1
		r.makeRoom(position, now)
	case position < r.tail || r.slot(position).position == position:
		return kept{}, false
	}
	data, extended := r.store(s, p)
	k := r.slot(position)
	*k = kept{
		position: position, source: s, at: now, data: data, extended: extended,
		seq: p.SequenceNumber, timestamp: p.Timestamp, marker: p.Marker, key: key, late: ahead <= 0, info: info,
	}
	r.bytes += len(data)
	return *k, true
}

// get returns the packet of s at position.
func (r *ring) get(s *source, position uint64) (kept, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.slots) == 0 {
		return kept{}, false
	}
	k := r.slot(position)
	return *k, k.position == position && k.source == s
}

// group returns the position of the newest keyframe of u, from which on a viewer
// can begin. It reports false if that is too old, has too much behind it, or
// packets are missing.
func (r *ring) group(u *UpTrack, now time.Time) (first uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.source == nil || r.source.up != u {
		return 0, false
	}
	bytes := 0
	var frame uint32 // timestamp of the keyframe
	for position := r.next - 1; position >= r.tail; position-- {
		k := r.slot(position)
		if k.position != position {
			return 0, false // also before the keyframe: the first of it could be missing
		}
		if k.source != r.source || ok && k.timestamp != frame {
			break
		}
		if bytes += len(k.data); bytes > groupBytes || now.Sub(k.at) > groupTime {
			return 0, false
		}
		if k.key {
			first, frame, ok = position, k.timestamp, true
		}
	}
	return first, ok
}

// from returns the packets from position on, up to about size bytes, and
// whether these are all.
func (r *ring) from(position uint64, size int) (packets []kept, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for position = max(position, r.tail); position < r.next && size > 0; position++ {
		if k := r.slot(position); k.position == position {
			packets = append(packets, *k)
			size -= len(k.data)
		}
	}
	return packets, position == r.next
}

func (r *ring) slot(position uint64) *kept {
	return &r.slots[position%uint64(len(r.slots))]
}

// makeRoom removes the packets that have to go, so that there is a slot for
// position, the highest.
func (r *ring) makeRoom(position uint64, now time.Time) {
	if position-r.tail >= 2*ringPackets {
		clear(r.slots)
		r.tail, r.bytes = position, 0
	}
	for ; r.tail < position; r.tail++ {
		k := r.slot(r.tail)
		if k.position != r.tail {
			continue // a gap
		}
		if position-r.tail < ringPackets && r.bytes <= ringBytes && now.Sub(k.at) < ringTime {
			break
		}
		r.bytes -= len(k.data)
		*k = kept{}
	}
	for position-r.tail >= uint64(len(r.slots)) {
		old := r.slots
		r.slots = make([]kept, 2*len(old))
		for _, k := range old {
			if k.position != 0 {
				*r.slot(k.position) = k
			}
		}
	}
}

// store copies the payload of p, and its header extensions as far as s names
// them.
func (r *ring) store(s *source, p *rtp.Packet) (data []byte, extended uint16) {
	size := len(p.Payload)
	for _, e := range s.exts {
		size += 2 + len(p.GetExtension(e.id))
	}
	if size > len(r.chunk) {
		r.chunk = make([]byte, max(size, chunkSize))
	}
	data = r.chunk[:0:size]
	r.chunk = r.chunk[size:]
	if p.Extension {
		for _, e := range s.exts {
			// An empty value has no form of one byte (RFC 8285, section 4.2).
			if v := p.GetExtension(e.id); len(v) > 0 && len(v) < 256 {
				data = append(append(data, e.id, uint8(len(v))), v...)
			}
		}
	}
	extended = uint16(len(data))
	return append(data, p.Payload...), extended
}
