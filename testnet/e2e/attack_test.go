package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/stun/v4"
	"github.com/pion/webrtc/v4"
)

// An attacker is an admitted viewer that then misbehaves in ways that no
// browser does.
type attacker struct {
	pc    *webrtc.PeerConnection
	video chan *webrtc.TrackRemote
	last  atomic.Uint32 // last sequence number received
	came  atomic.Int64  // bytes received
}

func attack(t *testing.T, n node, stream string) *attacker {
	t.Helper()
	a := &attacker{pc: newPeer(t), video: make(chan *webrtc.TrackRemote, 1)}
	a.pc.OnTrack(func(remote *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		first := remote.Kind() == webrtc.RTPCodecTypeVideo
		for {
			p, _, err := remote.ReadRTP()
			if err != nil {
				return // ends with pc
			}
			if remote.Kind() == webrtc.RTPCodecTypeVideo {
				a.last.Store(uint32(p.SequenceNumber))
				a.came.Add(int64(len(p.Payload)))
			}
			if first {
				first = false
				a.video <- remote
			}
		}
	})
	resp, answer := n.post(t, n.whep(stream), offerOf(t, a.pc, nil))
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", resp.Status, answer)
	}
	if err := a.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	return a
}

// used is the memory and the CPU time of the node's process.
func (n node) used(t *testing.T) (rssMB, cpu float64) {
	t.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.PID))
	if err != nil {
		t.Skip(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.PID))
	if err != nil {
		t.Fatal(err)
	}
	pages, _ := strconv.Atoi(strings.Fields(string(statm))[1])
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):]))
	user, _ := strconv.Atoi(fields[12])
	system, _ := strconv.Atoi(fields[13])
	return float64(pages*os.Getpagesize()) / 1e6, float64(user+system) / 100
}

// An admitted viewer cannot raise its cost by requests: neither in bits sent,
// nor in memory for addresses, nor in keyframes of the publisher; and others
// are served meanwhile.
func TestGreedyViewer(t *testing.T) {
	w := up(t, 1, nil)
	n := w.n(1)
	publish(t, n.whip("demo"))
	a := attack(t, n, "demo")
	var track *webrtc.TrackRemote
	select {
	case track = <-a.video:
	case <-time.After(patience):
		t.Fatal("no video")
	}
	honest := view(t, n.whep("demo"))
	flows(t, honest)

	sent := func() float64 { return n.metric(t, "weir_media_sent_bytes_total") }
	over := func(d time.Duration, tick func()) (out float64) {
		before, began := sent(), time.Now()
		for time.Since(began) < d {
			tick()
			time.Sleep(100 * time.Millisecond) // interval of the attacker's requests
		}
		return (sent() - before) * 8 / time.Since(began).Seconds()
	}
	calm := over(2*time.Second, func() {})
	asked := 0
	storm := over(3*time.Second, func() {
		// NACKs for the last 1,020 packets, twice: 260 bytes each.
		for range 3 {
			var pairs []rtcp.NackPair
			for i := range 60 {
				pairs = append(pairs, rtcp.NackPair{PacketID: uint16(a.last.Load()) - uint16(17*(i+1)), LostPackets: 0xffff})
			}
			nack := &rtcp.TransportLayerNack{SenderSSRC: 1, MediaSSRC: uint32(track.SSRC()), Nacks: pairs}
			if err := a.pc.WriteRTCP([]rtcp.Packet{nack}); err != nil {
				t.Fatal(err)
			}
			asked += nack.MarshalSize()
		}
	})
	in := float64(asked) * 8 / 3
	t.Logf("NACKs of %.0f kbit/s: %.2f Mbit/s out, %.2f without", in/1e3, storm/1e6, calm/1e6)
	// Half as much again for one viewer of two, and what was saved up before.
	if saved := calm; storm > 1.5*calm+saved {
		t.Errorf("NACKs of %.0f kbit/s raise what is sent from %.2f to %.2f Mbit/s", in/1e3, calm/1e6, storm/1e6)
	}
	if n.metric(t, `weir_media_repairs_total{result="withheld"}`) == 0 || n.metric(t, `weir_media_repairs_total{result="sent"}`) == 0 {
		t.Error("repairs that are sent or withheld are not counted")
	}

	// Valid checks from always new addresses.
	addresses := 2000
	if s := os.Getenv("WEIR_ATTACK_ADDRESSES"); s != "" {
		addresses, _ = strconv.Atoi(s)
	}
	local, remote := a.pc.LocalDescription().SDP, a.pc.RemoteDescription().SDP
	user := attribute(remote, "ice-ufrag") + ":" + attribute(local, "ice-ufrag")
	pwd := attribute(remote, "ice-pwd")
	rss, cpu := n.used(t)
	for range addresses {
		m, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername(user), stun.NewShortTermIntegrity(pwd), stun.Fingerprint)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("udp", n.Media)
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Write(m.Raw)
		_ = conn.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	flows(t, honest)
	rssAfter, cpuAfter := n.used(t)
	t.Logf("checks from %d addresses: RSS %.0f MB after %.0f, %.2f s of CPU", addresses, rssAfter, rss, cpuAfter-cpu)
	if got := n.metric(t, `weir_media_dropped_datagrams_total{reason="stun_sources"}`); got < float64(addresses)*0.9 {
		t.Errorf("%.0f of %d new addresses were refused", got, addresses)
	}
	if rssAfter > rss+50 {
		t.Errorf("%d addresses cost %.0f MB", addresses, rssAfter-rss)
	}
	if n.status(t).Viewers != 2 {
		t.Error("somebody has lost a session")
	}
}

// attribute is the value of the first a=name: line of a description.
func attribute(sdp, name string) string {
	_, rest, _ := strings.Cut(sdp, "a="+name+":")
	value, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(value)
}
