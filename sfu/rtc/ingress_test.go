package rtc

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	psdp "github.com/pion/sdp/v3"
	"github.com/pion/transport/v4/packetio"
	"github.com/pion/webrtc/v4"

	"weir/capacity/event"
	"weir/sfu/forward"
	"weir/sfu/nack"
	"weir/sfu/rtc/arrival"
	"weir/sfu/sdp"
)

// A fakeSender records the packets sent.
type fakeSender struct {
	sent []rtp.Packet
	rtcp []rtcp.Packet
	told func() // called by WriteRTCP; may be nil
}

func (l *fakeSender) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	l.sent = append(l.sent, rtp.Packet{Header: h.Clone(), Payload: payload})
	return len(payload), nil
}

func (l *fakeSender) WriteRTCP(p []rtcp.Packet) error {
	l.rtcp = append(l.rtcp, p...)
	if l.told != nil {
		l.told()
	}
	return nil
}

// keyPayload is a VP8 payload: the descriptor with the S bit, then a frame tag whose
// lowest bit is 0, for a keyframe (RFC 7741, sections 4.2 and 4.3).
var keyPayload = []byte{0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01}

func packet(seq uint16, ts uint32, payload []byte) *rtp.Packet {
	return &rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 96, SequenceNumber: seq, Timestamp: ts, SSRC: 1, Marker: true}, Payload: payload}
}

// A fakePublisher passes packets to an ingress as pion does, and records the
// packets sent to a viewer of each section.
type fakePublisher struct {
	*Ingress
	tb        testing.TB
	total     forward.Drops
	legs      []*fakeSender
	tracks    []*forward.Track
	events    []event.Event
	asked     [][]uint32
	requested []rtcp.Packet // NACKs
	ended     string
	buffers   map[uint32]interface{ Write([]byte) (int, error) }
}

// The header extension IDs that fake publishers offer.
const (
	fakeMid  = 4
	fakeRid  = 5
	fakeRrid = 6
)

// fakeSection is a section "0", "1", … of VP8 as 96 with RTX as 97, or of Opus
// as 111.
func newFakePublisher(tb testing.TB, sections ...sdp.Section) *fakePublisher {
	f := &fakePublisher{tb: tb, buffers: map[uint32]interface{ Write([]byte) (int, error) }{}}
	f.Ingress = NewIngress(&f.total, func(why string) { f.ended = why }, func(e event.Event) { f.events = append(f.events, e) })
	factory, err := report.NewReceiverInterceptor()
	if err != nil {
		tb.Fatal(err)
	}
	if f.reports, err = factory.NewInterceptor(""); err != nil {
		tb.Fatal(err)
	}
	var requesting sync.Mutex
	f.requests = nack.NewRequester(func(p []rtcp.Packet) error {
		requesting.Lock()
		defer requesting.Unlock()
		f.requested = append(f.requested, p...)
		return nil
	})
	tb.Cleanup(f.requests.Close)
	f.arrivals = arrival.NewReporter(func([]rtcp.Packet) error { return nil })
	tb.Cleanup(f.arrivals.Close)
	f.report = f.reports.BindRTCPReader(interceptor.RTCPReaderFunc(inPlace))
	for i, s := range sections {
		s.Index, s.MID, s.Kind = i, fmt.Sprint(i), webrtc.RTPCodecTypeVideo
		s.Codec = &sdp.Codec{PT: 96, RTX: 97}
		s.Codec.MimeType, s.Codec.ClockRate = webrtc.MimeTypeVP8, 90000
		if s.Media == "audio" {
			s.Codec = &sdp.Codec{PT: 111}
			s.Codec.MimeType, s.Codec.ClockRate = webrtc.MimeTypeOpus, 48000
		}
		s.Extensions = []sdp.Extension{{ID: fakeMid, URI: psdp.SDESMidURI}, {ID: fakeRid, URI: psdp.SDESRTPStreamIDURI}, {ID: fakeRrid, URI: psdp.SDESRepairRTPStreamIDURI}}
		t := &forward.Track{ID: fmt.Sprint("track", i), Codec: CodecOf(s.Codec.RTPCodecCapability)}
		if layers := layersOf(&s); len(layers) > 1 {
			t.Simulcast(layers)
		}
		f.Take(&s, t, func(ssrcs ...uint32) bool {
			f.asked = append(f.asked, ssrcs)
			return true
		})
		l, d := &fakeSender{}, forward.NewDownTrack(t)
		d.Bind(forward.Binding{Sender: l, SSRC: 4711, PayloadType: 120})
		t.Add(d)
		tb.Cleanup(func() { t.Remove(d) })
		f.legs, f.tracks = append(f.legs, l), append(f.tracks, t)
	}
	return f
}

func opusSection() sdp.Section { return sdp.Section{Media: "audio"} }

// send passes one packet of a keyframe, with header extensions if they are not
// empty.
func (f *fakePublisher) send(ssrc uint32, pt uint8, seq uint16, mid, rid string) {
	f.tb.Helper()
	p := packet(seq, uint32(seq)*3000, keyPayload)
	p.SSRC, p.PayloadType = ssrc, pt
	f.write(p, mid, rid, "")
}

func (f *fakePublisher) write(p *rtp.Packet, mid, rid, rrid string) {
	f.tb.Helper()
	for id, text := range map[uint8]string{fakeMid: mid, fakeRid: rid, fakeRrid: rrid} {
		if text != "" {
			if err := p.SetExtension(id, []byte(text)); err != nil {
				f.tb.Fatal(err)
			}
		}
	}
	b, err := p.Marshal()
	if err != nil {
		f.tb.Fatal(err)
	}
	f.raw(p.SSRC, b)
}

func (f *fakePublisher) raw(ssrc uint32, b []byte) {
	if f.buffers[ssrc] == nil {
		f.buffers[ssrc] = f.buffer(packetio.RTPBufferPacket, ssrc)
	}
	if n, err := f.buffers[ssrc].Write(b); n != len(b) || err != nil {
		f.tb.Errorf("Write = %d, %v", n, err)
	}
}

// sent returns the number of packets sent to the viewer of each section, and
// checks that their sequence numbers are consecutive.
func (f *fakePublisher) sent() []int {
	f.tb.Helper()
	var n []int
	for i, l := range f.legs {
		f.tracks[i].Settle()
		n = append(n, len(l.sent))
		for j := 1; j < len(l.sent); j++ {
			if l.sent[j].SequenceNumber != l.sent[j-1].SequenceNumber+1 {
				f.tb.Errorf("section %d: number %d after %d", i, l.sent[j].SequenceNumber, l.sent[j-1].SequenceNumber)
			}
		}
	}
	return n
}

func (f *fakePublisher) saw(kind event.Kind) (n int) {
	for _, e := range f.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func (f *fakePublisher) expect(sent []int, dropped map[string]int64) {
	f.tb.Helper()
	if got := f.sent(); fmt.Sprint(got) != fmt.Sprint(sent) {
		f.tb.Errorf("viewers were sent %v, want %v", got, sent)
	}
	if got := f.drops.Counts(false); fmt.Sprint(got) != fmt.Sprint(dropped) {
		f.tb.Errorf("not forwarded: %v, want %v", got, dropped)
	}
	if got := f.total.Counts(false); fmt.Sprint(got) != fmt.Sprint(dropped) {
		f.tb.Errorf("the node counts %v, want %v", got, dropped)
	}
}

func TestSectionOfAPacket(t *testing.T) {
	for _, c := range []struct {
		name     string
		sections []sdp.Section
		send     func(f *fakePublisher)
		sent     []int
		dropped  map[string]int64
	}{
		{"by payload type", []sdp.Section{{}, opusSection()}, func(f *fakePublisher) {
			f.send(1, 96, 1, "", "")
			f.send(2, 111, 1, "", "")
		}, []int{1, 1}, nil},
		{"by MID, and later packets without it", []sdp.Section{{}, {}}, func(f *fakePublisher) {
			f.send(1, 96, 1, "1", "")
			f.send(1, 96, 2, "", "")
			f.send(2, 96, 1, "0", "")
		}, []int{1, 2}, nil},
		{"by the SSRC that the offer declares", []sdp.Section{{SSRCs: []uint32{1}}, {SSRCs: []uint32{2}}}, func(f *fakePublisher) {
			f.send(2, 96, 1, "", "")
		}, []int{0, 1}, nil},
		{"one codec twice and no word: in order", []sdp.Section{{}, {}}, func(f *fakePublisher) {
			f.send(7, 96, 1, "", "")
			f.send(8, 96, 1, "", "")
			f.send(9, 96, 1, "", "") // a third source
		}, []int{1, 1}, map[string]int64{"unknown_ssrc": 1}},
		{"a MID corrects what was guessed, once", []sdp.Section{{}, {}}, func(f *fakePublisher) {
			f.send(7, 96, 1, "", "")
			f.send(7, 96, 2, "1", "")
			f.send(7, 96, 3, "0", "")
			f.send(8, 96, 1, "0", "")
		}, []int{2, 1}, map[string]int64{"unknown_ssrc": 1}},
		{"payload type 0 where there are no retransmissions", []sdp.Section{opusSection()}, func(f *fakePublisher) {
			f.send(1, 111, 1, "0", "")
			f.send(1, 0, 2, "0", "")
		}, []int{1}, map[string]int64{"payload_type": 1}},
		{"a MID of no section", []sdp.Section{{}}, func(f *fakePublisher) { f.send(1, 96, 1, "x", "") }, []int{0}, map[string]int64{"no_section": 1}},
		{"a payload type of no section", []sdp.Section{{}}, func(f *fakePublisher) { f.send(1, 100, 1, "", "") }, []int{0}, map[string]int64{"payload_type": 1}},
		{"a payload type of another section", []sdp.Section{{}, opusSection()}, func(f *fakePublisher) { f.send(1, 111, 1, "0", "") }, []int{0, 0}, map[string]int64{"payload_type": 1}},
		{"no RTP", []sdp.Section{{}}, func(f *fakePublisher) { f.raw(1, []byte{0x80, 96, 0}) }, []int{0}, map[string]int64{"malformed": 1}},
		{"a second stream beside the first", []sdp.Section{{}}, func(f *fakePublisher) {
			f.send(1, 96, 1, "", "")
			f.send(2, 96, 1, "", "")
			f.send(1, 96, 2, "", "")
		}, []int{2}, map[string]int64{"second_stream": 1}},
		{"a retransmission", []sdp.Section{{}}, func(f *fakePublisher) {
			f.send(1, 96, 1, "", "")
			p := packet(900, 6000, append([]byte{0, 2}, keyPayload...)) // number 2 again
			p.SSRC, p.PayloadType = 2, 97
			f.write(p, "", "", "")
			p.SequenceNumber++
			f.write(p, "", "", "") // and again
			p.Payload = nil        // padding
			f.write(p, "", "", "")
		}, []int{2}, map[string]int64{"duplicate": 1}},
		{"a retransmission of nothing", []sdp.Section{{}}, func(f *fakePublisher) { f.send(2, 97, 1, "", "") }, []int{0}, map[string]int64{"rtx_unpaired": 1}},
		{"layers, and retransmissions of each", []sdp.Section{{Layers: []string{"h", "l"}}}, func(f *fakePublisher) {
			f.send(1, 96, 1, "0", "h")
			f.send(2, 96, 1, "0", "l")
			for ssrc, rrid := range map[uint32]string{11: "h", 12: "l", 13: ""} {
				p := packet(900, 6000, append([]byte{0, 2}, keyPayload...))
				p.SSRC, p.PayloadType = ssrc, 97
				f.write(p, "0", "", rrid)
			}
		}, []int{2}, map[string]int64{"rtx_unpaired": 1}},
		{"declared layers without RIDs", []sdp.Section{{SSRCs: []uint32{1, 2, 3}, Repairs: map[uint32]uint32{2: 3}}}, func(f *fakePublisher) {
			f.send(1, 96, 1, "", "")
			f.send(2, 96, 1, "", "")
			f.send(3, 97, 1, "", "")
		}, []int{1}, map[string]int64{"layer_not_forwarded": 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // all at one moment
				f := newFakePublisher(t, c.sections...)
				c.send(f)
				if c.dropped == nil {
					c.dropped = map[string]int64{}
				}
				f.expect(c.sent, c.dropped)
				delete(c.dropped, "duplicate") // browsers probe by duplicates
				if n := f.saw(event.MediaDropped); n != len(c.dropped) {
					t.Errorf("%d events, want one for each reason: %v", n, f.events)
				}
			})
		})
	}
}

// paced calls send 30 times a second for d.
func paced(d time.Duration, send func(i int)) {
	for i := range int(d / (time.Second / 30)) {
		send(i)
		time.Sleep(time.Second / 30)
	}
}

// A source that changes its SSRC is forwarded again within a moment, in the
// viewer's numbering, and a keyframe is requested.
func TestSSRCChange(t *testing.T) {
	for _, c := range []struct {
		name string
		mid  string
		lost int
	}{{"without a word", "", 9}, {"by the MID", "0", 0}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakePublisher(t, sdp.Section{SSRCs: []uint32{1}})
				paced(2*time.Second, func(i int) { f.send(1, 96, uint16(i), c.mid, "") })
				paced(2*time.Second, func(i int) { f.send(2, 96, uint16(40000+i), c.mid, "") })
				dropped := map[string]int64{}
				if c.lost > 0 {
					dropped["second_stream"] = int64(c.lost)
				}
				f.expect([]int{120 - c.lost}, dropped)
				if n := f.saw(event.MediaChanged); n != 1 {
					t.Errorf("%d changes, want 1", n)
				}
				if last := f.asked[len(f.asked)-1]; fmt.Sprint(last) != "[2 1]" {
					t.Errorf("keyframes were asked for under %v, want the last under the new SSRC, and the declared one", f.asked)
				}
			})
		})
	}
}

// Two streams that alternate, or send at once, in one section cost the viewer
// only a few changes.
func TestAlternatingSSRCsDoNotFlap(t *testing.T) {
	for _, c := range []struct {
		name string
		turn int // packets of one stream before the other's turn
		most int
	}{{"packet by packet", 1, 0}, {"in turns of half a second", 15, 3}} {
		for _, mid := range []string{"", "0"} {
			t.Run(c.name+mid, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFakePublisher(t, sdp.Section{})
					var seq [2]uint16
					paced(30*time.Second, func(i int) {
						which := i / c.turn % 2
						seq[which]++
						f.send(uint32(1+which), 96, seq[which], mid, "")
					})
					if n := f.saw(event.MediaChanged); n > c.most {
						t.Errorf("%d changes in 30 s, want at most %d", n, c.most)
					}
				})
			})
		}
	}
	t.Run("ever new ones", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFakePublisher(t, sdp.Section{})
			paced(30*time.Second, func(i int) { f.send(uint32(i), 96, uint16(i), "0", "") })
			if n := f.saw(event.MediaChanged); n > 15 {
				t.Errorf("%d changes in 30 s, want no more than one in two seconds", n)
			}
		})
	})
}

// Each layer of simulcast is a source of its own, whether RIDs tell them apart or
// SSRCs; what is of no layer of the offer is not taken, and layers that are
// paused are no event while another flows.
func TestLayersOfSimulcast(t *testing.T) {
	for name, offered := range map[string]sdp.Section{
		"RID": {Layers: []string{"2", "1", "0"}}, "SSRC": {Sim: []uint32{1, 2, 3}, SSRCs: []uint32{1, 2, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakePublisher(t, offered)
				up := time.Now()
				all := map[uint32]string{1: "0", 2: "1", 3: "2"}
				var seq [4]uint16
				send := func(ssrcs ...uint32) func(int) {
					return func(int) {
						for _, ssrc := range ssrcs {
							rid := ""
							if name == "RID" {
								rid = all[ssrc]
							}
							seq[ssrc]++
							f.send(ssrc, 96, seq[ssrc], "0", rid)
						}
						f.Look(time.Now(), up)
					}
				}
				paced(2*time.Second, send(3, 2, 1))
				paced(10*time.Second, send(1))
				for i, st := range f.Status(time.Now()) {
					if want := fmt.Sprint(2 - i); st.Layer != want || st.State != "flowing" || st.SSRC != uint32(3-i) || st.Packets == 0 {
						t.Errorf("layer %d: %+v", i, st)
					}
				}
				for _, e := range f.events {
					if e.Kind == event.MediaStalled {
						t.Errorf("event %+v", e)
					}
				}
				if n := f.drops.Sum(); n != 0 {
					t.Errorf("not forwarded: %v", f.NotForwarded())
				}
				for ssrc := range uint32(20) {
					f.send(100+ssrc, 96, 1, "0", fmt.Sprint("x", ssrc))
				}
				if n := f.drops[forward.OtherLayer].Load(); n != 20 {
					t.Errorf("%d packets of layers that are not there were counted", n)
				}
				f.sent()
			})
		})
	}
}

// An accepted section that sends nothing, or stops sending, is an event, and so
// is its resumption.
func TestStalledSections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakePublisher(t, sdp.Section{}, opusSection())
		up := time.Now()
		var seq uint16
		step := func(d time.Duration, send bool) (kinds []string) {
			for range int(d / time.Second) {
				if send {
					seq++
					f.send(2, 111, seq, "", "")
				}
				time.Sleep(time.Second)
				f.Look(time.Now(), up)
			}
			for _, e := range f.events {
				kinds = append(kinds, string(e.Kind)+" "+e.Reason+" "+e.Detail)
			}
			f.events = nil
			return kinds
		}
		for i, want := range []string{
			"[stream.started   media.stalled never-sent section 0 (video, VP8) was accepted and sends nothing, 5s after the connection was up]",
			"[media.stalled silent section 1 (audio, opus) sends nothing any more, for 5s]",
			"[media.resumed  section 1 (audio, opus) sends again]",
		} {
			if got := fmt.Sprint(step(8*time.Second, i != 1)); got != want {
				t.Errorf("step %d: %s, want %s", i, got, want)
			}
		}
		if silent := f.Silence(time.Now(), up); silent != time.Second {
			t.Errorf("silent for %v, want 1 s", silent)
		}
	})
}

// The first report after a change of SSRC moves the viewer's clock.
func TestReportsOfAnUndeclaredStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakePublisher(t, sdp.Section{})
		f.send(9, 96, 1, "", "")
		f.sent()
		f.legs[0].rtcp = nil
		f.legs[0].told = func() {
			if !f.mu.TryLock() {
				t.Error("all other packets wait for the reports to viewers")
				return
			}
			f.mu.Unlock()
		}
		sr, err := (&rtcp.SenderReport{SSRC: 9, NTPTime: 1 << 32, RTPTime: 3000}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		for _, ssrc := range []uint32{9, 10} { // the second belongs to no source
			if _, err := f.buffer(packetio.RTCPBufferPacket, ssrc).Write(sr); err != nil {
				t.Fatal(err)
			}
		}
		f.sent()
		if len(f.legs[0].rtcp) != 1 {
			t.Errorf("%d reports, want 1", len(f.legs[0].rtcp))
		}
	})
}

// A stream that sends BYE makes room for another at once.
func TestGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakePublisher(t, sdp.Section{})
		f.send(9, 96, 1, "", "")
		bye, err := (&rtcp.Goodbye{Sources: []uint32{9}}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.buffer(packetio.RTCPBufferPacket, 9).Write(bye); err != nil {
			t.Fatal(err)
		}
		f.send(10, 96, 1, "", "")
		f.expect([]int{2}, map[string]int64{})
	})
}

// The session of a publisher that uses ever new SSRCs is ended.
func TestSSRCsAreBounded(t *testing.T) {
	f := newFakePublisher(t, sdp.Section{})
	for ssrc := range uint32(3 * maxStreams) {
		f.send(ssrc, 96, 1, "", "")
	}
	sources := 0
	for _, b := range f.buffers {
		if b.(*tap).source != nil {
			sources++
		}
	}
	if f.ended == "" || sources > 2*maxStreams {
		t.Errorf("ended %q, with %d streams", f.ended, sources)
	}
}

// FuzzIngress checks that no properly encrypted packet of a publisher breaks an
// ingress.
func FuzzIngress(f *testing.F) {
	p := packet(1, 3000, keyPayload)
	_ = p.SetExtension(fakeMid, []byte("0"))
	seed, _ := p.Marshal()
	f.Add(seed, false)
	f.Add([]byte{0xb0, 97, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1}, false)
	f.Add([]byte{0x80, 200, 0, 6, 0, 0, 0, 1}, true)
	f.Fuzz(func(t *testing.T, b []byte, report bool) {
		pub := newFakePublisher(t, sdp.Section{Layers: []string{"h"}}, opusSection())
		pub.send(1, 96, 1, "", "h")
		if !report {
			pub.raw(1, b)
			pub.raw(2, b)
			return
		}
		_, _ = pub.buffer(packetio.RTCPBufferPacket, 1).Write(b)
	})
}
