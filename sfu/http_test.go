package sfu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/pion/webrtc/v4"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/sfu/problem"
	"weir/sfu/sdp"
	"weir/sfu/sdp/sdptest"
)

// call sends one request and returns the answer with its body read.
func call(t *testing.T, method, url, contentType, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer c.CloseIdleConnections()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// Any bad request gets a problem that explains it, and does not disturb a
// running session.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	a.publish("demo")
	v := a.watch("demo")
	good := sdptest.Offer(sdptest.Video("0", "recvonly"))

	for _, c := range []struct {
		name, method, path, contentType, body string
		status                                int
		code                                  problem.Code
		says                                  string
	}{
		{"JSON for SDP", "POST", "/whep/demo", "application/json", "{}", 415, problem.BadMediaType, "send application/sdp"},
		{"no content type", "POST", "/whip/x", "", good, 415, problem.BadMediaType, "application/sdp"},
		{"a body too long", "POST", "/whep/demo", "application/sdp", strings.Repeat("a", sdp.MaxBytes+1), 413, problem.TooLarge, "65536 bytes"},
		{"nine sections", "POST", "/whep/demo", "application/sdp", sdptest.Offer(strings.Repeat(sdptest.Video("0", "recvonly"), 9)), 400, problem.BadSDP, "at most 8"},
		{"no SDP", "POST", "/whip/x", "application/sdp", "hello", 400, problem.BadSDP, "no media section"},
		{"a bad name", "POST", "/whip/a/../b", "application/sdp", good, 0, "", ""},
		{"a bad segment", "POST", "/whip/a b", "application/sdp", good, 400, problem.BadStreamName, "stream"},
		{"no name", "POST", "/whip/", "application/sdp", good, 400, problem.BadStreamName, "stream"},
		{"a stream nobody publishes", "POST", "/whep/nothing", "application/sdp", good, 409, problem.NotLive, "not live"},
		{"a layer that is no number", "POST", "/whep/nothing?spatial=8", "application/sdp", good, 400, problem.BadParameter, "0 to 7"},
		{"a RID too long", "POST", "/whep/nothing?layer=" + strings.Repeat("x", 300), "application/sdp", good, 400, problem.BadParameter, "256 bytes"},
		{"a wait too long", "POST", "/whep/nothing?wait=1h", "application/sdp", good, 400, problem.BadWait, "up to 30s"},
		{"a ticket that is none", "POST", "/whep/demo?ticket=xyz", "application/sdp", good, 403, problem.BadTicket, "ticket"},
		{"no codec in common", "POST", "/whep/demo", "application/sdp", strings.ReplaceAll(good, "VP8", "VP7"), 406, problem.NoCommonCodec, "video/VP8"},
		{"nothing to publish", "POST", "/whip/x", "application/sdp", sdptest.Offer(sdptest.Video("0", "recvonly")), 406, problem.NoCommonCodec, "send at least one track"},
		{"GET for a stream", "GET", "/whep/demo", "", "", 405, problem.BadMethod, "POST"},
		{"PATCH without a session", "PATCH", "/session/none", "application/trickle-ice-sdpfrag", "a=ice-ufrag:x\r\n", 404, problem.NoSession, "no such session"},
		{"DELETE without a session", "DELETE", "/session/none", "", "", 404, problem.NoSession, "no such session"},
		{"POST to a session", "POST", "/session/none", "application/sdp", good, 405, problem.BadMethod, "PATCH and DELETE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := a.web.URL + strings.ReplaceAll(c.path, " ", "%20")
			resp, body := call(t, c.method, url, c.contentType, c.body)
			if c.status == 0 { // cleaned by the server's mux before our handler
				if resp.StatusCode < 300 {
					t.Errorf("got %s", resp.Status)
				}
				return
			}
			said := problem.Parse(resp.StatusCode, resp.Header.Get("Content-Type"), []byte(body))
			if resp.StatusCode != c.status || said.Code != c.code || !strings.Contains(said.Detail, c.says) {
				t.Errorf("got %s, %q; want %d, %s and a word of %q", resp.Status, body, c.status, c.code, c.says)
			}
			if strings.Count(strings.TrimSpace(body), "\n") > 0 {
				t.Errorf("more than one line: %q", body)
			}
			if c.status == 409 && resp.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if resp.Header.Get("Access-Control-Allow-Origin") != "*" {
				t.Error("a page could not read this answer")
			}
		})
	}
	flows(t, v, 5)
	if s := v.Stats(); s.Lost != 0 {
		t.Errorf("a running session lost %d packets", s.Lost)
	}
	if got := a.ledger.Totals(time.Now()); got.Sessions != 2 {
		t.Errorf("%d sessions in the ledger, want the publisher and the viewer", got.Sessions)
	}
}

// Errors between nodes are distinguished, in our own words.
func TestProblemsBetweenNodes(t *testing.T) {
	m := newMesh(t)
	full := &capacity.Refusal{Reason: "sessions", Detail: "1 of 1 sessions in use"}
	var locate, place error
	other := m.add(ledger.Limits{}, nil).id
	a := m.add(ledger.Limits{Sessions: 1}, func(c *Config) {
		c.Locate = func(context.Context, capacity.Need, []peer.ID) (Carrier, error) {
			return Carrier{Node: other}, locate
		}
		c.Dial = func(context.Context, peer.ID, []multiaddr.Multiaddr) (Signal, error) {
			return nil, errors.New("failed to dial: all dials failed")
		}
		c.Handover = c.Dial
		c.Place = func(context.Context, capacity.Need, []peer.ID) (Helper, error) {
			lease := capacity.Lease{ID: "lease", Target: other, Expires: time.Now().Add(capacity.LeaseTime)}
			return Helper{Node: other, URL: "http://127.0.0.1:1", Lease: lease}, place
		}
		c.Overflow, c.RoomWait = always(Relay), time.Millisecond
	})
	offer := sdptest.Offer(sdptest.Video("0", "recvonly"))
	ask := func(code problem.Code) {
		t.Helper()
		// A request that comes while the last pull fails gets that pull's
		// error.
		eventually(t, "no pull is left", func() bool {
			return a.tree.Pulls() == 0
		})
		resp, body := call(t, "POST", a.web.URL+"/whep/demo", "application/sdp", offer)
		p := problem.Parse(resp.StatusCode, resp.Header.Get("Content-Type"), []byte(body))
		if p.Code != code || p.Stream != "demo" || p.RetryAfter == 0 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("got %s, %+v; want %s", resp.Status, p, code)
		}
		for _, goes := range []string{"ticket=", "dial", "context", "peer.ID", "sql"} {
			if strings.Contains(p.Detail, goes) {
				t.Errorf("%s: a person is told %q", code, p.Detail)
			}
		}
		if p.Code == problem.Internal != (p.Request != "") {
			t.Errorf("%s has the request ID %q", p.Code, p.Request)
		}
	}
	ask(problem.OriginUnreachable) // it cannot be dialled
	locate = &capacity.Refusal{Reason: "unreachable", Detail: "none of 3 answered"}
	ask(problem.OriginUnreachable)
	locate = full
	ask(problem.NoCapacity)
	locate = ErrNotLive
	ask(problem.NotLive)
	locate = fmt.Errorf("look: %w", context.DeadlineExceeded)
	ask(problem.Timeout)
	locate = errors.New("sql: no rows")
	ask(problem.Internal)

	a.publish("own") // it is full now
	ask(problem.HelperUnreachable)
	place = &capacity.Refusal{Reason: "unreachable", Detail: "none of 3 answered"}
	ask(problem.HelperUnreachable)
	place = full
	ask(problem.NoCapacity)
	if detail := a.lastDetail("refused"); !strings.Contains(detail, "1 of 1 sessions") {
		t.Errorf("the last refusal was %q", detail)
	}
}

func TestPreflight(t *testing.T) {
	m := newMesh(t)
	a := m.add(ledger.Limits{Sessions: 1}, nil)
	a.publish("demo") // full: a preflight is answered all the same
	for path, methods := range map[string]string{"/whip/x": "POST", "/whep/demo": "POST", "/session/y": "DELETE"} {
		resp, _ := call(t, "OPTIONS", a.web.URL+path, "", "", "Origin", "https://example.org", "Access-Control-Request-Method", methods)
		if resp.StatusCode != 204 || !strings.Contains(resp.Header.Get("Access-Control-Allow-Methods"), methods) ||
			!strings.Contains(resp.Header.Get("Access-Control-Expose-Headers"), "Location") {
			t.Errorf("%s: %s, %v", path, resp.Status, resp.Header)
		}
	}
}

// pionViewer offers to receive video and audio by plain pion, and returns the
// connection and the response.
func pionViewer(t *testing.T, n *meshNode, stream string) (*webrtc.PeerConnection, *http.Response) {
	t.Helper()
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(media)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.GracefulClose() })
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
		if _, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			t.Fatal(err)
		}
	}
	resp, answer := negotiate(t, pc, n.web.URL+"/whep/"+stream)
	if len(answer) > 8<<10 || !strings.Contains(answer, "a=candidate") || strings.Contains(answer, "a=ice-lite") {
		t.Errorf("an answer of %d bytes:\n%s", len(answer), answer)
	}
	return pc, resp
}

// negotiate POSTs pc's offer, with all candidates, to url, and takes the answer,
// which it returns.
func negotiate(t *testing.T, pc *webrtc.PeerConnection, url string) (*http.Response, string) {
	t.Helper()
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	resp, answer := call(t, "POST", url, "application/sdp", pc.LocalDescription().SDP)
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", resp.Status, answer)
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	return resp, answer
}

func TestSessionSurface(t *testing.T) {
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	a.publish("demo")
	pc, resp := pionViewer(t, a, "demo")
	session, etag := resp.Header.Get("Location"), resp.Header.Get("ETag")
	if !strings.HasPrefix(session, a.web.URL+"/session/") {
		t.Errorf("Location %q is not absolute", session)
	}
	if !strings.HasPrefix(etag, `"`) {
		t.Errorf("ETag %q is not a strong one", etag)
	}
	eventually(t, "connected", func() bool { return pc.ConnectionState() == webrtc.PeerConnectionStateConnected })

	local := pc.LocalDescription().SDP
	ufrag := fieldOf(local, "a=ice-ufrag:")
	candidate := "a=candidate:1 1 UDP 2130706431 127.0.0.1 9 typ host\r\n"
	for _, c := range []struct {
		name, contentType, body, match string
		status                         int
	}{
		{"a candidate", "application/trickle-ice-sdpfrag", "a=ice-ufrag:" + ufrag + "\r\na=mid:0\r\n" + candidate, etag, 204},
		{"without If-Match", "application/trickle-ice-sdpfrag", "a=ice-ufrag:" + ufrag + "\r\na=mid:0\r\n" + candidate, "", 204},
		{"an old ETag", "application/trickle-ice-sdpfrag", "a=ice-ufrag:" + ufrag + "\r\n" + candidate, `"old"`, 412},
		{"the wrong type", "application/sdp", "x", etag, 415},
		{"no fragment", "application/trickle-ice-sdpfrag", "{}", etag, 400},
		{"a restart without a password", "application/trickle-ice-sdpfrag", "a=ice-ufrag:other\r\n", "*", 400},
		{"candidates without end", "application/trickle-ice-sdpfrag", "a=ice-ufrag:" + ufrag + "\r\na=mid:0\r\n" + strings.Repeat(candidate, sdp.MaxCandidates+1), etag, 204},
	} {
		resp, body := call(t, "PATCH", session, c.contentType, c.body, "If-Match", c.match)
		if resp.StatusCode != c.status {
			t.Errorf("%s: %s %q, want %d", c.name, resp.Status, body, c.status)
		}
	}

	// A restart succeeds, and media continues.
	offer, err := pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	before := fieldOf(pc.RemoteDescription().SDP, "a=ice-ufrag:")
	restart := "a=ice-ufrag:" + fieldOf(offer.SDP, "a=ice-ufrag:") + "\r\na=ice-pwd:" + fieldOf(offer.SDP, "a=ice-pwd:") + "\r\n"
	resp, fragment := call(t, "PATCH", session, "application/trickle-ice-sdpfrag", restart, "If-Match", "*")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/trickle-ice-sdpfrag" || resp.Header.Get("ETag") == etag {
		t.Fatalf("restart: %s, ETag %s: %s", resp.Status, resp.Header.Get("ETag"), fragment)
	}
	if strings.Count(fragment, "a=candidate") != 2 || strings.Index(fragment, " 1 udp ") > strings.Index(fragment, " 1 tcp ") || fieldOf(fragment, "a=ice-ufrag:") == before {
		t.Errorf("fragment:\n%s", fragment)
	}
	answer := withCredentials(pc.RemoteDescription().SDP, fieldOf(fragment, "a=ice-ufrag:"), fieldOf(fragment, "a=ice-pwd:"))
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	mid := "0"
	if err := pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: "candidate:" + fieldOf(fragment, "a=candidate:"), SDPMid: &mid}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected again by the new credentials", func() bool {
		return pc.ICEConnectionState() == webrtc.ICEConnectionStateConnected && pc.SignalingState() == webrtc.SignalingStateStable
	})

	if resp, body := call(t, "DELETE", session, "", ""); resp.StatusCode != 200 {
		t.Errorf("DELETE: %s %s", resp.Status, body)
	}
	if resp, body := call(t, "DELETE", session, "", ""); resp.StatusCode != 404 || !strings.Contains(body, "already") {
		t.Errorf("second DELETE: %s %s", resp.Status, body)
	}
	if resp, body := call(t, "PATCH", session, "application/trickle-ice-sdpfrag", restart); resp.StatusCode != 404 || !strings.Contains(body, "ended") {
		t.Errorf("PATCH after DELETE: %s %s", resp.Status, body)
	}
}

// A client whose connection ends first gets the same answer to its DELETE.
func TestDeleteAfterTheConnectionEnded(t *testing.T) {
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	a.publish("demo")
	pc, resp := pionViewer(t, a, "demo")
	eventually(t, "connected", func() bool { return pc.ConnectionState() == webrtc.PeerConnectionStateConnected })
	if err := pc.GracefulClose(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session has ended", func() bool { return a.Counts().Viewers == 0 })
	if resp, body := call(t, "DELETE", resp.Header.Get("Location"), "", ""); resp.StatusCode != 200 {
		t.Errorf("DELETE: %s %s", resp.Status, body)
	}
}

// A name has one publisher, which can come back once it has gone.
func TestNameIsTaken(t *testing.T) {
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	p := a.publish("demo")
	resp, body := call(t, "POST", a.web.URL+"/whip/demo", "application/sdp", sdptest.Offer(sdptest.Video("0", "sendonly")))
	if resp.StatusCode != 409 || !strings.Contains(body, "being published here") {
		t.Errorf("a second publisher: %s %s", resp.Status, body)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	a.publish("demo")
	flows(t, a.watch("demo"), 3)
}

// Other nodes are asked for a name once, by the node that admits the publisher,
// and a refused publisher leaves nothing behind.
func TestNameIsTakenElsewhere(t *testing.T) {
	m := newMesh(t)
	var a, b *meshNode
	asked := map[*meshNode]*atomic.Int64{}
	add := func(limits ledger.Limits) (n *meshNode) {
		count := &atomic.Int64{}
		n = m.add(limits, func(c *Config) {
			c.Claim = func(_ context.Context, stream string, _ []byte) (func(), error) {
				count.Add(1)
				switch stream {
				case "taken":
					return nil, &TakenError{Node: a.id}
				case "unknown":
					return nil, &UnansweredError{Why: "5 of 8 holders did not answer"}
				}
				return func() {}, nil
			}
		})
		asked[n] = count
		return n
	}
	a = add(ledger.Limits{Sessions: 1})
	b = add(ledger.Limits{})
	a.publish("own")
	before := asked[a].Load()
	offer := sdptest.Offer(sdptest.Video("0", "sendonly"))
	for stream, want := range map[string]int{"taken": 409, "free": 201, "unknown": 503} {
		resp, body := call(t, "POST", a.web.URL+"/whip/"+stream, "application/sdp", offer)
		if resp.StatusCode != 307 {
			t.Fatalf("%s at a full node: %s %s", stream, resp.Status, body)
		}
		was := asked[b].Load()
		resp, body = call(t, "POST", resp.Header.Get("Location"), "application/sdp", offer)
		if resp.StatusCode != want || want == 409 && !strings.Contains(body, "being published at node "+a.id.String()) {
			t.Errorf("%s where it was sent: %s %s", stream, resp.Status, body)
		}
		if want == 503 && (resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "5 of 8 holders did not answer") || !strings.Contains(body, `"not-known"`)) {
			t.Errorf("%s where it was sent: %v %s", stream, resp.Header, body)
		}
		if n := asked[b].Load() - was; n != 1 {
			t.Errorf("%s: asked %d times where it was sent", stream, n)
		}
	}
	if n := asked[a].Load() - before; n != 0 {
		t.Errorf("the full node asked %d times", n)
	}
	if got := b.ledger.Totals(time.Now()); got.Publishers != 1 || got.Leases != 0 {
		t.Errorf("the ledger counts %d publishers and %d leases", got.Publishers, got.Leases)
	}
}

// Of three publishers of one name at three nodes at the same time, none of
// which sees the others yet, one stays.
func TestNameIsTakenTwice(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	var visible atomic.Bool
	var nodes []*meshNode
	for range 3 {
		var n *meshNode
		n = m.add(ledger.Limits{}, func(c *Config) {
			c.Published = func(_ context.Context, stream string, _ []byte) (at []Rival, _ error) {
				for _, other := range m.all() {
					if carried, ok := other.carriage(stream); visible.Load() && other != n && ok && carried.Origin && carried.State == capacity.Live {
						at = append(at, Rival{Node: other.id})
					}
				}
				return at, nil
			}
		})
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b *meshNode) int { return cmp.Compare(a.id, b.id) })
	for _, n := range nodes {
		n.publish("demo")
	}
	stays := nodes[0]
	v := stays.watch("demo")
	for _, goes := range nodes[1:] {
		goes.watch("demo")
	}
	visible.Store(true)
	for _, goes := range nodes[1:] {
		eventually(t, "one has gone", func() bool { return goes.saw("session.closed") > 0 })
		if detail := goes.lastDetail("session.closed"); !strings.Contains(detail, "its name was taken at node") {
			t.Errorf("it is told %q", detail)
		}
	}
	from := v.Stats().Frames
	eventually(t, "the other goes on", func() bool { return v.Stats().Frames > from+100 })
	if n := stays.Counts().Publishers; n != 1 {
		t.Errorf("%d publishers where it stays", n)
	}
	for _, goes := range nodes[1:] {
		eventually(t, "its viewers get the stream that stays", func() bool {
			c, _ := goes.carriage("demo")
			return c.Parent != "" && c.Path[0] == stays.id
		})
	}
}

// wait holds a viewer's request until the stream is live.
func TestWaitForAStream(t *testing.T) {
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	answered := make(chan int, 1)
	go func() {
		resp, err := http.Post(a.web.URL+"/whep/later?wait=20s", "application/sdp", strings.NewReader(sdptest.Offer(sdptest.Video("0", "recvonly"))))
		if err != nil {
			answered <- 0
			return
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	eventually(t, "the viewer has asked", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.pulls > 0 })
	a.publish("later")
	select {
	case status := <-answered:
		if status != 201 {
			t.Errorf("status %d", status)
		}
	case <-time.After(patience):
		t.Error("no answer")
	}
	http.DefaultClient.CloseIdleConnections()
}

func fieldOf(sdp, prefix string) string {
	for line := range strings.Lines(sdp) {
		if v, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// A stream starts with its publisher's first media and ends with its publisher;
// both are reported once, in that order.
func TestStreamEvents(t *testing.T) {
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	p := a.publish("demo")
	eventually(t, "the stream starts", func() bool { return a.saw(event.StreamStarted) == 1 })
	v := a.watch("demo")
	flows(t, v, 5)
	if a.saw(event.StreamEnded) != 0 {
		t.Error("the stream is over while it flows")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "the stream ends", func() bool { return a.saw(event.StreamEnded) == 1 })
	eventually(t, "the session is over", func() bool { return a.saw(event.SessionClosed) == 2 })
	if started := a.saw(event.StreamStarted); started != 1 {
		t.Errorf("it started %d times", started)
	}
	if detail := a.lastDetail(event.StreamStarted); !strings.Contains(detail, "video/VP8") {
		t.Errorf("its codecs are %q", detail)
	}
}
