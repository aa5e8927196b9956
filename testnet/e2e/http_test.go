package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"

	"weir/sfu"
	"weir/sfu/problem"
)

// web follows no redirect and keeps no connection.
var web = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       patience,
}

// send sends one request and returns its answer with the body read; for a
// problem, its text for people.
func send(t *testing.T, method, url, contentType, body string, header map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode >= 400 {
		return resp, problem.Parse(resp.StatusCode, resp.Header.Get("Content-Type"), text).Detail
	}
	return resp, string(text)
}

// problemOf sends one request and returns the problem in the answer.
func problemOf(t *testing.T, method, url, contentType, body string, header map[string]string) *problem.Problem {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for k, v := range header {
		req.Header.Set(k, v)
		if k == "Host" {
			req.Host = v
		}
	}
	resp, err := web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	p := problem.Read(resp)
	if resp.Header.Get("Content-Type") != problem.ContentType || p.Type != "urn:weir:problem:"+string(p.Code) || p.Title == "" || p.Detail == "" {
		t.Errorf("%s %s: %s: %+v, of type %s; want a whole problem", method, url, resp.Status, p, resp.Header.Get("Content-Type"))
	}
	if after := resp.Header.Get("Retry-After"); after != "" && after != fmt.Sprint(p.RetryAfter) {
		t.Errorf("Retry-After is %q, and %d in the body", after, p.RetryAfter)
	}
	return p
}

// post posts an offer.
func (n node) post(t *testing.T, url, offer string) (*http.Response, string) {
	t.Helper()
	return send(t, http.MethodPost, url, "application/sdp", offer, nil)
}

// get requests path from the admin API.
func (n node) get(t *testing.T, path string) string {
	t.Helper()
	resp, text := send(t, http.MethodGet, n.Admin+path, "", "", nil)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, resp.Status)
	}
	return text
}

func retryAfter(t *testing.T, resp *http.Response) int {
	t.Helper()
	v, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil {
		t.Errorf("Retry-After: %v", err)
	}
	return v
}

// newPeer makes a client's PeerConnection that receives audio and video.
func newPeer(t *testing.T) *webrtc.PeerConnection {
	t.Helper()
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	loggers := logging.NewDefaultLoggerFactory()
	loggers.DefaultLogLevel = logging.LogLevelDisabled
	s.LoggerFactory = loggers
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(m)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.GracefulClose() })
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
		if _, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			t.Fatal(err)
		}
	}
	return pc
}

// offerOf is pc's offer, with its candidates.
func offerOf(t *testing.T, pc *webrtc.PeerConnection, options *webrtc.OfferOptions) string {
	t.Helper()
	gathered := webrtc.GatheringCompletePromise(pc)
	offer, err := pc.CreateOffer(options)
	if err == nil {
		err = pc.SetLocalDescription(offer)
	}
	if err != nil {
		t.Fatal(err)
	}
	<-gathered
	return pc.LocalDescription().SDP
}

// viewerOffer is the offer of a viewer that does nothing after it.
func viewerOffer(t *testing.T) string {
	t.Helper()
	pc := newPeer(t)
	defer pc.GracefulClose()
	return offerOf(t, pc, nil)
}

func TestPreflight(t *testing.T) {
	w := up(t, 2, only(1, "--session-limit", "2"))
	full := w.n(1)
	fill(t, full, "demo") // a preflight is never redirected
	for path, methods := range map[string]string{"/whip/demo": "POST", "/whep/demo": "POST", "/session/none": "PATCH, DELETE"} {
		resp, _ := send(t, http.MethodOptions, full.HTTP+path, "", "", map[string]string{
			"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type",
		})
		h := resp.Header
		if resp.StatusCode != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("OPTIONS %s: %s, for origin %q", path, resp.Status, h.Get("Access-Control-Allow-Origin"))
		}
		says(t, h.Get("Access-Control-Allow-Methods"), methods, "OPTIONS")
		says(t, h.Get("Access-Control-Allow-Headers"), "Content-Type", "If-Match", "Authorization")
		says(t, h.Get("Access-Control-Expose-Headers"), "Location", "ETag", "Link", "Retry-After")
	}
	// Headers exposed to browsers are present on the redirect too.
	resp, _ := full.post(t, full.whep("demo"), viewerOffer(t))
	if resp.StatusCode != http.StatusTemporaryRedirect || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("the redirect: %s, %v", resp.Status, resp.Header)
	}
}

func TestBadRequests(t *testing.T) {
	w := up(t, 2, nil)
	n := w.n(1)
	w.witness(n, n, w.n(2))
	offer := viewerOffer(t)
	section := offer[strings.Index(offer, "m=audio"):strings.Index(offer, "m=video")]
	var nine strings.Builder
	nine.WriteString(offer)
	for i := range 7 {
		nine.WriteString(strings.Replace(section, "a=mid:0", fmt.Sprintf("a=mid:%d", i+2), 1))
	}
	const candidate = "a=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\n"
	noise := make([]byte, 3000)
	_, _ = rand.Read(noise) // rand.Read does not fail

	const sdp = "application/sdp"
	for name, c := range map[string]struct {
		method, path, contentType, body string
		status                          int
		code                            problem.Code
		says                            []string
	}{
		"GET":                              {"GET", "/whep/witness", "", "", 405, problem.BadMethod, []string{"by POST"}},
		"PUT of a session":                 {"PUT", "/session/x", sdp, offer, 405, problem.BadMethod, []string{"PATCH and DELETE"}},
		"no content type":                  {"POST", "/whep/witness", "", offer, 415, problem.BadMediaType, []string{"send application/sdp"}},
		"JSON":                             {"POST", "/whip/x", "application/json", "{}", 415, problem.BadMediaType, []string{"application/json", "send application/sdp"}},
		"too long":                         {"POST", "/whep/witness", sdp, offer + strings.Repeat("a=x\r\n", 20_000), 413, problem.TooLarge, []string{"65536 bytes"}},
		"nine media sections":              {"POST", "/whep/witness", sdp, nine.String(), 400, problem.BadSDP, []string{"9 media sections", "at most 8"}},
		"lines without end":                {"POST", "/whep/witness", sdp, offer + strings.Repeat("a=x\r\n", 5000), 400, problem.BadSDP, []string{"more than 4096 lines"}},
		"sections that begin with CR":      {"POST", "/whep/witness", sdp, offer + strings.Repeat("\rm=video 9 RTP/SAVPF 96", 800), 400, problem.BadSDP, []string{"802 media sections", "at most 8"}},
		"two sections without a group":     {"POST", "/whep/witness", sdp, strings.ReplaceAll(offer, "a=group:BUNDLE", "a=x"), 422, problem.UnusableOffer, []string{"BUNDLE"}},
		"a section that is not taken":      {"POST", "/whip/x", sdp, strings.NewReplacer("recvonly", "sendonly", "VP8", "VPX", "VP9", "VPX", "H264", "VPX", "AV1", "VPX", "H265", "VPX").Replace(offer), 406, problem.NoCommonCodec, []string{"section 1 (video, mid 1) offers VPX", "VP8, H264"}},
		"no SDP":                           {"POST", "/whep/witness", sdp, "hello", 400, problem.BadSDP, []string{"bad SDP"}},
		"noise":                            {"POST", "/whip/x", sdp, string(noise), 400, problem.BadSDP, []string{"bad SDP"}},
		"an empty body":                    {"POST", "/whip/x", sdp, "", 400, problem.BadSDP, []string{"bad SDP"}},
		"SDP cut short":                    {"POST", "/whep/witness", sdp, offer[:strings.Index(offer, "m=video")+14], 400, problem.BadSDP, []string{"bad SDP"}},
		"without fingerprint":              {"POST", "/whep/witness", sdp, strings.ReplaceAll(offer, "a=fingerprint", "a=x"), 400, problem.BadSDP, []string{"a=fingerprint", "DTLS"}},
		"a publisher that sends nothing":   {"POST", "/whip/x", sdp, offer, 406, problem.NoCommonCodec, []string{"must send at least one track"}},
		"a viewer of no codec there is":    {"POST", "/whep/witness", sdp, strings.NewReplacer("VP8", "VPX", "opus", "gsm").Replace(offer), 406, problem.NoCommonCodec, []string{"VP8", "opus", "offer to receive that"}},
		"a bad stream name":                {"POST", "/whep/a/%2e%2e/b", sdp, offer, 400, problem.BadStreamName, nil},
		"a stream name of spaces":          {"POST", "/whip/a%20b", sdp, offer, 400, problem.BadStreamName, nil},
		"a long stream name":               {"POST", "/whip/" + strings.Repeat("x", 129), sdp, offer, 400, problem.BadStreamName, nil},
		"PATCH of an unknown session":      {"PATCH", "/session/none", "application/trickle-ice-sdpfrag", candidate, 404, problem.NoSession, []string{"no such session"}},
		"DELETE of an unknown session":     {"DELETE", "/session/none", "", "", 404, problem.NoSession, []string{"no such session"}},
		"a name that is taken":             {"POST", "/whip/witness", sdp, strings.ReplaceAll(offer, "recvonly", "sendonly"), 409, problem.NameTaken, []string{"being published here"}},
		"a wait without a unit":            {"POST", "/whep/nobody?wait=5", sdp, offer, 400, problem.BadWait, []string{"wait=5", "such as 10s"}},
		"a forged ticket":                  {"POST", "/whep/witness?ticket=xyz", sdp, offer, 403, problem.BadTicket, []string{"ask the server that sent you again"}},
		"a stream that nobody has, viewed": {"POST", "/whep/nobody", sdp, offer, 409, problem.NotLive, []string{"not live", "try again"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := problemOf(t, c.method, n.HTTP+c.path, c.contentType, c.body, nil)
			if p.Status != c.status || p.Code != c.code {
				t.Errorf("%d %s, want %d %s: %s", p.Status, p.Code, c.status, c.code, p.Detail)
			}
			if strings.Contains(p.Detail, "\n") {
				t.Errorf("%q; want one line", p.Detail)
			}
			says(t, p.Detail, c.says...)
		})
	}
	if s := n.status(t); s.Publishers != 1 || s.Viewers != 1 || s.Leases != 0 {
		t.Errorf("afterwards there are %+v, want the witness alone", s)
	}
}

// The admin API reports errors in the same way.
func TestBadAdminRequests(t *testing.T) {
	w := up(t, 1, nil)
	n := w.n(1)
	for name, c := range map[string]struct {
		method, path, body string
		header             map[string]string
		status             int
		code               problem.Code
		says               string
	}{
		"by name":                {"GET", "/api/v1/status", "", map[string]string{"Host": "weir.example.org"}, 403, problem.BadHost, "by its IP address"},
		"from another site":      {"GET", "/api/v1/status", "", map[string]string{"Origin": "http://example.org"}, 403, problem.BadOrigin, "other sites"},
		"a path that is none":    {"GET", "/api/v1/nothing", "", nil, 404, problem.NotFound, "/api/v1/nothing"},
		"a method that is none":  {"DELETE", "/api/v1/status", "", nil, 405, problem.BadMethod, "GET"},
		"a peer that is none":    {"GET", "/api/v1/records/me", "", nil, 400, problem.BadParameter, "no peer ID"},
		"a drain of no JSON":     {"POST", "/api/v1/drain", "soon", nil, 400, problem.BadBody, "deadline_ms"},
		"a drain of ages":        {"POST", "/api/v1/drain", `{"deadline_ms":-1}`, nil, 400, problem.BadParameter, "want 0 for none"},
		"a policy that is none":  {"POST", "/api/v1/policy", "name: x", nil, 400, problem.BadPolicy, ""},
		"a policy that is large": {"POST", "/api/v1/policy", strings.Repeat("x", 1<<20), nil, 413, problem.TooLarge, "at most"},
		"a policy with mistakes": {"POST", "/api/v1/policy/try", "filter:\n- {name: a, when: r.sterss < 1}\n- {name: b, when: r.sessoins > 1}\n", nil, 400, problem.BadPolicy, "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			p := problemOf(t, c.method, n.Admin+c.path, "", c.body, c.header)
			if p.Status != c.status || p.Code != c.code {
				t.Errorf("%d %s, want %d %s: %s", p.Status, p.Code, c.status, c.code, p.Detail)
			}
			says(t, p.Detail, c.says)
		})
	}
}

// Offers beyond browsers' common form are answered, each section in its place.
func TestForeignOffers(t *testing.T) {
	w := up(t, 1, nil)
	n := w.n(1)
	w.witness(n, n)
	offer := viewerOffer(t)
	send := strings.ReplaceAll(offer, "recvonly", "sendonly")
	video := offer[:strings.Index(offer, "m=audio")] + offer[strings.Index(offer, "m=video"):]
	candidates := ""
	for i := range 40 {
		candidates += fmt.Sprintf("a=candidate:%d 1 udp 1 10.0.0.%d 9 typ host\r\na=candidate:%d 1 tcp 1 10.0.0.%d 9 typ host tcptype active\r\n", i, i+1, i+50, i+1)
	}
	data := "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:9\r\na=sctp-port:5000\r\n"
	for name, c := range map[string]struct {
		path, offer string
		says        []string
	}{
		"names in capitals":               {"/whep/witness", strings.NewReplacer("opus/", "OPUS/", "VP8/", "vp8/").Replace(offer), []string{"OPUS/48000/2", "vp8/90000"}},
		"a lone section without a group":  {"/whep/witness", strings.ReplaceAll(video, "a=group:BUNDLE", "a=x"), []string{"m=video 9 "}},
		"a data channel":                  {"/whep/witness", offer + data, []string{"m=audio 9 ", "m=video 9 ", "m=application 0 UDP/DTLS/SCTP webrtc-datachannel"}},
		"a data channel, to publish":      {"/whip/data", send + data, []string{"m=audio 9 ", "m=video 9 ", "m=application 0 "}},
		"more candidates than are used":   {"/whip/many", send + candidates, []string{"m=video 9 "}},
		"no final newline":                {"/whip/newline", strings.TrimRight(send, "\r\n"), []string{"m=video 9 "}},
		"LF alone":                        {"/whip/lf", strings.ReplaceAll(send, "\r\n", "\n"), []string{"m=video 9 "}},
		"G.711 beside video":              {"/whip/alaw", strings.NewReplacer("opus/48000/2", "X/8000").Replace(send), []string{"m=video 9 ", "G722/8000"}},
		"more sections than there is for": {"/whep/witness", offer + strings.Replace(audioSection(offer), "a=mid:0", "a=mid:2", 1), []string{"m=audio 9 ", "m=audio 0 "}},
	} {
		t.Run(name, func(t *testing.T) {
			resp, answer := n.post(t, n.HTTP+c.path, c.offer)
			if resp.StatusCode != http.StatusCreated {
				t.Fatalf("%s: %s", resp.Status, answer)
			}
			says(t, answer, c.says...)
		})
	}
}

// audioSection is the audio of an offer.
func audioSection(offer string) string {
	return offer[strings.Index(offer, "m=audio"):strings.Index(offer, "m=video")]
}

// A handViewer is a viewer whose session is controlled by the test.
type handViewer struct {
	t        *testing.T
	pc       *webrtc.PeerConnection
	resource string
	etag     string
	answer   string
	packets  atomic.Int64
}

func viewByHand(t *testing.T, url string) *handViewer {
	t.Helper()
	v := &handViewer{t: t, pc: newPeer(t)}
	v.pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		buf := make([]byte, 2048)
		for {
			if _, _, err := track.Read(buf); err != nil {
				return
			}
			v.packets.Add(1)
		}
	})
	resp, text := send(t, http.MethodPost, url, "application/sdp", offerOf(t, v.pc, nil), nil)
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", resp.Status, text)
	}
	v.resource, v.etag, v.answer = resp.Header.Get("Location"), resp.Header.Get("ETag"), text
	if !strings.HasPrefix(v.resource, "http://") || len(v.etag) < 3 || v.etag[0] != '"' {
		t.Fatalf("Location %q, ETag %q; want an absolute URL and a strong tag", v.resource, v.etag)
	}
	v.answered(text)
	return v
}

func (v *handViewer) answered(sdp string) {
	v.t.Helper()
	if err := v.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp}); err != nil {
		v.t.Fatal(err)
	}
}

func (v *handViewer) flows() {
	v.t.Helper()
	before := v.packets.Load()
	eventually(v.t, "packets come", func() bool { return v.packets.Load() > before+50 })
}

const fragmentType = "application/trickle-ice-sdpfrag"

// patch sends a fragment, without If-Match if the tag is empty.
func (v *handViewer) patch(fragment, tag string) (*http.Response, string) {
	v.t.Helper()
	header := map[string]string{}
	if tag != "" {
		header["If-Match"] = tag
	}
	return send(v.t, http.MethodPatch, v.resource, fragmentType, fragment, header)
}

// lines are the lines of an SDP that begin with one of prefixes, without
// duplicates.
func lines(sdp string, prefixes ...string) (found []string) {
	for line := range strings.Lines(sdp) {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) }) && !slices.Contains(found, line) {
			found = append(found, line)
		}
	}
	return found
}

func TestSessionResource(t *testing.T) {
	w := up(t, 2, nil)
	a, b := w.n(1), w.n(2)
	w.witness(a, a, b)
	v := viewByHand(t, b.whep("witness"))
	v.flows()
	if len(v.answer) > 8<<10 || len(lines(v.answer, "a=candidate:")) == 0 {
		t.Errorf("the answer has %d bytes and candidates %v; want less than 8 KiB and all candidates", len(v.answer), lines(v.answer, "a=candidate:"))
	}

	ufrag := strings.Join(lines(v.pc.LocalDescription().SDP, "a=ice-ufrag:")[:1], "")
	const another = "a=candidate:7 1 udp 2130706431 127.0.0.1 9 typ host\r\n"
	expect := func(what string, resp *http.Response, text string, status int, parts ...string) {
		t.Helper()
		if resp.StatusCode != status {
			t.Errorf("%s: %s, want %d: %s", what, resp.Status, status, text)
		}
		says(t, text, parts...)
	}
	fragment := ufrag + "a=mid:0\r\n" + another
	resp, text := v.patch(fragment, v.etag)
	expect("trickle with its tag", resp, text, 204)
	resp, text = v.patch(fragment, "")
	expect("trickle without a tag", resp, text, 204)
	resp, text = v.patch(fragment, `"another"`)
	expect("trickle with another tag", resp, text, 412, "If-Match", "ETag")
	resp, text = v.patch("hello", v.etag)
	expect("no fragment", resp, text, 400, "bad SDP")
	resp, text = send(t, http.MethodPatch, v.resource, "text/plain", fragment, nil)
	expect("a fragment of another type", resp, text, 415, "send "+fragmentType)
	// Candidates above the limit are ignored and counted: clients give up at an
	// error.
	for i := range 40 {
		one := strings.Replace(another, "127.0.0.1 9", fmt.Sprintf("127.0.0.1 %d", 10+i), 1)
		resp, text = v.patch(ufrag+"a=mid:0\r\n"+one+"a=candidate:8 1 udp 1 x.local 9 typ host\r\n", v.etag)
		expect(fmt.Sprintf("candidate %d", i), resp, text, 204)
	}
	if !slices.ContainsFunc(b.sessions(t), func(s sfu.SessionStatus) bool {
		return s.CandidatesUnused["over the bound"] > 0 && s.CandidatesUnused["a name"] == 40
	}) {
		t.Errorf("sessions: %+v; want candidates over the bound in one", b.sessions(t))
	}
	v.flows()

	// ICE restart, twice: the connection lives on, with new credentials.
	for range 2 {
		old := v.etag
		offer := offerOf(t, v.pc, &webrtc.OfferOptions{ICERestart: true})
		fragment := strings.Join(lines(offer, "a=ice-ufrag:", "a=ice-pwd:"), "") + "a=mid:0\r\n" + strings.Join(lines(offer, "a=candidate:"), "")
		resp, text = v.patch(fragment, `"another"`)
		expect("a restart with another tag", resp, text, 412, "If-Match")
		resp, text = v.patch(fragment, old)
		expect("a restart", resp, text, 200, "a=ice-ufrag:", "a=ice-pwd:", "a=candidate:")
		if got := resp.Header.Get("Content-Type"); got != fragmentType {
			t.Errorf("a restart's answer has type %q", got)
		}
		if v.etag = resp.Header.Get("ETag"); v.etag == "" || v.etag == old {
			t.Errorf("ETag after a restart: %q, before: %q; want another", v.etag, old)
		}
		candidates := lines(text, "a=candidate:")
		for _, c := range candidates {
			if f := strings.Fields(c); len(f) < 2 || f[1] != "1" {
				t.Errorf("a candidate of a component that is not used: %s", c)
			}
		}
		before := v.packets.Load()
		v.answered(restarted(v.answer, text))
		eventually(t, "ICE is connected again", func() bool { return v.pc.ICEConnectionState() == webrtc.ICEConnectionStateConnected })
		eventually(t, "packets come after the restart", func() bool { return v.packets.Load() > before+50 })
		resp, text = v.patch(fragment, old)
		expect("the tag before the restart", resp, text, 412)
	}
	if v.pc.ConnectionState() != webrtc.PeerConnectionStateConnected {
		t.Errorf("the connection is %s", v.pc.ConnectionState())
	}

	resp, text = send(t, http.MethodDelete, v.resource, "", "", nil)
	expect("DELETE", resp, text, 200)
	resp, text = send(t, http.MethodDelete, v.resource, "", "", nil)
	expect("DELETE again", resp, text, 404, "deleted already")
	resp, text = v.patch(fragment, v.etag)
	expect("PATCH after the end", resp, text, 404, "has ended", "POST")
	eventually(t, "its connection is closed", func() bool {
		s := v.pc.ConnectionState()
		return s == webrtc.PeerConnectionStateClosed || s == webrtc.PeerConnectionStateFailed || s == webrtc.PeerConnectionStateDisconnected
	})
	if s := b.status(t); s.Viewers != 1 {
		t.Errorf("%d viewers, want the witness alone", s.Viewers)
	}

	// If the client closes the connection first, its DELETE still gets 200.
	v = viewByHand(t, b.whep("witness"))
	v.flows()
	if err := v.pc.GracefulClose(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session has ended", func() bool { return b.status(t).Viewers == 1 })
	resp, text = send(t, http.MethodDelete, v.resource, "", "", nil)
	expect("DELETE after the connection ended", resp, text, 200)
}

// restarted is answer with the credentials and candidates of fragment.
func restarted(answer, fragment string) string {
	var b strings.Builder
	for line := range strings.Lines(answer) {
		switch {
		case strings.HasPrefix(line, "a=ice-ufrag:"), strings.HasPrefix(line, "a=ice-pwd:"):
			key, _, _ := strings.Cut(line, ":")
			line = strings.Join(lines(fragment, key+":"), "")
		}
		b.WriteString(line)
	}
	return b.String()
}

// Anyone who can reach the media port can send it datagrams. DTLS records that
// are not authenticated are dropped before the DTLS stack sees them.
func TestForgedDatagrams(t *testing.T) {
	w := up(t, 2, nil)
	a, b := w.n(1), w.n(2)
	w.witness(a, a, b)
	conn, err := net.Dial("udp", a.Media)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	noise := make([]byte, 1200)
	_, _ = rand.Read(noise) // rand.Read does not fail
	datagrams := map[string][]byte{
		"a fatal alert of epoch 0":    {21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 2, 40},
		"application data of epoch 0": {23, 254, 253, 0, 0, 0, 0, 0, 0, 0, 2, 0, 4, 1, 2, 3, 4},
		"noise":                       noise,
		"nothing":                     {},
		"one byte":                    {22},
		"RTP of nobody":               append([]byte{0x80, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1}, noise[:100]...),
		"STUN of nobody":              append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, noise[:12]...),
	}
	for range 50 {
		for _, name := range slices.Sorted(maps.Keys(datagrams)) {
			if _, err := conn.Write(datagrams[name]); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	eventually(t, "the forged records are counted as dropped", func() bool {
		_, rest, ok := strings.Cut(a.get(t, "/metrics"), "\nweir_media_dropped_datagrams_total{reason=\"unknown_source\"} ")
		value, _, _ := strings.Cut(rest, "\n")
		dropped, err := strconv.ParseFloat(value, 64)
		return ok && err == nil && dropped >= 100
	})
	flows(t, view(t, a.whep("witness"))) // new viewers are served
}

// waits reports whether conn's other end has neither answered nor closed it.
func waits(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := conn.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// Clients that send nothing, or stop in the middle, delay nothing else.
func TestStalledRequests(t *testing.T) {
	t.Parallel()
	w := up(t, 2, nil)
	n := w.n(1)
	w.witness(n, n, w.n(2))
	var stalled []net.Conn
	for range 50 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(n.HTTP, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		stalled = append(stalled, conn)
		if _, err := io.WriteString(conn, "POST /whep/witness HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nContent-Length: 1000\r\n\r\nv=0\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	viewed := view(t, n.whep("witness"))
	if !slices.ContainsFunc(stalled, waits) {
		t.Error("a viewer was served only once all stalled requests had ended")
	}
	flows(t, viewed)
	// An offer that never connects is ended, and does not affect others.
	for range 10 {
		resp, text := n.post(t, n.whep("witness"), viewerOffer(t))
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("%s: %s", resp.Status, text)
		}
	}
	eventually(t, "sessions that never connected have ended", func() bool { return n.status(t).Viewers == 2 })
}
