package rtc

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/stun/v4"
	"github.com/pion/webrtc/v4"

	"weir/sfu/forward"
	"weir/sfu/sdp"
	"weir/sfu/sdp/sdptest"
	"weir/sfu/udp"
)

// attribute returns the value of an attribute of a description.
func attribute(t *testing.T, text, key string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "a="+key+":")
	if !ok {
		t.Fatalf("no a=%s in %s", key, text)
	}
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}

// A client that looks at its pairs every hour gets a connection: the server
// checks a pair as soon as the client does, by which the client nominates it.
// Nothing goes to the candidates that the client has named.
func TestClientsAreCheckedBack(t *testing.T) {
	socket, err := udp.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	e, err := NewEngine(Config{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	stranger, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var checks atomic.Int64
	const seldom = time.Hour
	agent, err := ice.NewAgentWithOptions(
		ice.WithNetworkTypes([]ice.NetworkType{ice.NetworkTypeUDP4}), ice.WithCandidateTypes([]ice.CandidateType{ice.CandidateTypeHost}),
		ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled), ice.WithIncludeLoopback(), ice.WithCheckInterval(seldom), ice.WithKeepaliveInterval(seldom),
		ice.WithBindingRequestHandler(func(*stun.Message, ice.Candidate, ice.Candidate, *ice.CandidatePair) bool {
			checks.Add(1)
			return false
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	ufrag, pwd, err := agent.GetLocalUserCredentials()
	if err != nil {
		t.Fatal(err)
	}
	gathered := make(chan struct{})
	if err := errors.Join(agent.OnCandidate(func(c ice.Candidate) {
		if c == nil {
			close(gathered)
		}
	}), agent.GatherCandidates()); err != nil {
		t.Fatal(err)
	}
	<-gathered

	named := stranger.LocalAddr().String()
	candidate := "a=candidate:1 1 udp 2130706431 " + strings.ReplaceAll(named, ":", " ") + " typ host\r\n"
	offer := strings.NewReplacer("abcd", ufrag, "0123456789012345678901", pwd).Replace(sdptest.Offer(sdptest.Video("0", "recvonly") + candidate))
	o, err := sdp.ParseOffer([]byte(offer))
	if err != nil {
		t.Fatal(err)
	}
	st := &forward.Stream{Tracks: []*forward.Track{{ID: "video0", Codec: CodecOf(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000})}}}
	viewer, answer, err := e.View(ctx, st, o, func(forward.Kind, time.Time) {})
	if err != nil {
		t.Fatal(err)
	}
	defer viewer.Close()
	if strings.Contains(answer, "a=ice-lite") {
		t.Error("the server says that it does not check")
	}
	remote, err := ice.UnmarshalCandidate(attribute(t, answer, "candidate"))
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.AddRemoteCandidate(remote); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Dial(ctx, attribute(t, answer, "ice-ufrag"), attribute(t, answer, "ice-pwd")); err != nil {
		t.Fatal(err)
	}
	if checks.Load() == 0 {
		t.Error("the client was connected before the server checked anything")
	}
	if _, err := stranger.WriteTo([]byte("last"), stranger.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1500)
	if n, from, err := stranger.ReadFrom(b); err != nil || string(b[:n]) != "last" {
		t.Errorf("%d bytes from %v, %v, went to an address that only the offer names", n, from, err)
	}
}
