package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"weir/sfu/problem"
)

// fakeNode is the part of a node that the console sees: the state and its
// events, and a WHIP and WHEP server that forwards one publisher to its
// viewers.
type fakeNode struct {
	*httptest.Server
	api *webrtc.API

	mu       sync.Mutex
	state    map[string]any
	events   bool                       // whether /console/events is served
	watching map[chan struct{}]struct{} // waiting for a new state
	refuse   http.HandlerFunc           // answers POSTs instead, when set
	tap      func(*http.Request)        // sees POSTs, when set
	posts    int                        // POSTs seen
	opened   int                        // sessions so far
	deleted  []string                   // their IDs
	sessions map[string]*webrtc.PeerConnection
	tracks   map[string][]*webrtc.TrackLocalStaticRTP // by stream
	askKey   map[string]func()                        // asks the publisher of a stream for a key frame
	wg       sync.WaitGroup                           // readers of RTP and RTCP
}

func newFakeNode(t *testing.T) *fakeNode {
	t.Helper()
	var media webrtc.MediaEngine
	if err := media.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	var setting webrtc.SettingEngine
	setting.SetIncludeLoopbackCandidate(true)
	setting.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	setting.SetLite(true)
	n := &fakeNode{
		api:      webrtc.NewAPI(webrtc.WithMediaEngine(&media), webrtc.WithSettingEngine(setting)),
		state:    map[string]any{"self": "", "network": "open", "nodes": []any{}, "streams": []any{}, "time": time.Now()},
		events:   true,
		watching: make(map[chan struct{}]struct{}),
		sessions: make(map[string]*webrtc.PeerConnection),
		tracks:   make(map[string][]*webrtc.TrackLocalStaticRTP),
		askKey:   make(map[string]func()),
	}
	mux := http.NewServeMux()
	mux.Handle("/", Handler())
	mux.Handle("/weir-player.js", Player())
	mux.Handle("/embed/", Embed([]string{"*"}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { cors(w) })
	mux.HandleFunc("GET /nodes", n.serveNodes)
	mux.HandleFunc("GET /console/state", n.serveState)
	mux.HandleFunc("GET /console/events", n.serveEvents)
	mux.HandleFunc("/whip/{stream...}", n.signal(n.publish))
	mux.HandleFunc("/whep/{stream...}", n.signal(n.view))
	mux.HandleFunc("/session/{id}", n.serveSession)
	n.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		n.CloseClientConnections()
		n.Close()
		n.mu.Lock()
		sessions := n.sessions
		n.sessions = nil
		n.mu.Unlock()
		for _, pc := range sessions {
			_ = pc.Close()
		}
		n.wg.Wait()
	})
	return n
}

// set replaces the state and wakes the waiting clients.
func (n *fakeNode) set(state map[string]any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state = state
	for c := range n.watching {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (n *fakeNode) setRefuse(f http.HandlerFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refuse = f
}

func (n *fakeNode) setTap(f func(*http.Request)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tap = f
}

func (n *fakeNode) snapshot() []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	b, err := json.Marshal(n.state)
	if err != nil {
		panic(err) // a test's own state
	}
	return b
}

func (n *fakeNode) serveState(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(n.snapshot())
}

// serveNodes lists the nodes of the state as alternatives for a stream.
func (n *fakeNode) serveNodes(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	var state struct {
		Nodes []struct {
			Record struct {
				URL string `json:"url"`
			} `json:"record"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal(n.snapshot(), &state); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	urls := []string{}
	for _, o := range state.Nodes {
		if u := o.Record.URL; u != "" && u != n.URL {
			urls = append(urls, u)
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"nodes": urls})
}

func (n *fakeNode) serveEvents(w http.ResponseWriter, r *http.Request) {
	changed := make(chan struct{}, 1)
	n.mu.Lock()
	events := n.events
	n.watching[changed] = struct{}{}
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.watching, changed)
	}()
	if !events {
		http.Error(w, "no events", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for {
		if _, err := fmt.Fprintf(w, "data: %s\n\n", n.snapshot()); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// signal does the common part of WHIP and WHEP.
func (n *fakeNode) signal(answer func(stream string, offer webrtc.SessionDescription) (string, *webrtc.PeerConnection, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		cors(w)
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		n.mu.Lock()
		n.posts++
		refuse, tap := n.refuse, n.tap
		n.mu.Unlock()
		if tap != nil {
			tap(r)
		}
		if refuse != nil {
			refuse(w, r)
			return
		}
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/sdp" {
			http.Error(w, "send an offer as application/sdp", http.StatusUnsupportedMediaType)
			return
		}
		offer, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		id, pc, err := answer(r.PathValue("stream"), webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: string(offer)})
		if errors.Is(err, errNotLive) {
			problem.New(problem.NotLive, "nobody publishes "+r.PathValue("stream")+" now").Retry(time.Second).Write(w)
			return
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/sdp")
		w.Header().Set("Location", n.URL+"/session/"+id)
		w.Header().Set("ETag", `"`+id+`"`)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, pc.LocalDescription().SDP)
	}
}

func cors(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "POST, PATCH, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Content-Type, Authorization, If-Match")
	h.Set("Access-Control-Expose-Headers", "Location, ETag, Link, Retry-After")
}

func (n *fakeNode) serveSession(w http.ResponseWriter, r *http.Request) {
	cors(w)
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	id := r.PathValue("id")
	n.mu.Lock()
	pc := n.sessions[id]
	delete(n.sessions, id)
	n.deleted = append(n.deleted, id)
	n.mu.Unlock()
	if pc != nil {
		_ = pc.Close()
	}
}

var errNotLive = errors.New("not live")

// open answers an offer and keeps the session.
func (n *fakeNode) open(kind string, offer webrtc.SessionDescription, prepare func(*webrtc.PeerConnection) error) (string, *webrtc.PeerConnection, error) {
	pc, err := n.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return "", nil, err
	}
	err = prepare(pc)
	if err == nil {
		err = pc.SetRemoteDescription(offer)
	}
	if err == nil {
		gathered := webrtc.GatheringCompletePromise(pc)
		var answer webrtc.SessionDescription
		if answer, err = pc.CreateAnswer(nil); err == nil {
			if err = pc.SetLocalDescription(answer); err == nil {
				<-gathered
			}
		}
	}
	if err != nil {
		return "", nil, errors.Join(err, pc.Close())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opened++
	id := kind + strconv.Itoa(n.opened)
	n.sessions[id] = pc
	return id, pc, nil
}

func (n *fakeNode) publish(stream string, offer webrtc.SessionDescription) (string, *webrtc.PeerConnection, error) {
	return n.open("in", offer, func(pc *webrtc.PeerConnection) error {
		pc.OnTrack(func(remote *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
			local, err := webrtc.NewTrackLocalStaticRTP(remote.Codec().RTPCodecCapability, remote.Kind().String(), stream)
			if err != nil {
				return
			}
			n.mu.Lock()
			n.tracks[stream] = append(n.tracks[stream], local)
			if remote.Kind() == webrtc.RTPCodecTypeVideo {
				n.askKey[stream] = func() {
					_ = pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(remote.SSRC())}})
				}
			}
			n.mu.Unlock()
			n.wg.Go(func() {
				for {
					p, _, err := remote.ReadRTP()
					if err != nil {
						return
					}
					// A viewer that has gone must not stop the others.
					_ = local.WriteRTP(p)
				}
			})
		})
		return nil
	})
}

func (n *fakeNode) view(stream string, offer webrtc.SessionDescription) (string, *webrtc.PeerConnection, error) {
	n.mu.Lock()
	tracks := n.tracks[stream]
	askKey := n.askKey[stream]
	n.mu.Unlock()
	if len(tracks) < 2 || askKey == nil {
		return "", nil, errNotLive
	}
	return n.open("out", offer, func(pc *webrtc.PeerConnection) error {
		for _, track := range tracks {
			sender, err := pc.AddTrack(track)
			if err != nil {
				return err
			}
			n.wg.Go(func() {
				for {
					packets, _, err := sender.ReadRTCP()
					if err != nil {
						return
					}
					for _, p := range packets {
						if _, ok := p.(*rtcp.PictureLossIndication); ok {
							askKey()
						}
					}
				}
			})
		}
		pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
			if s == webrtc.PeerConnectionStateConnected {
				askKey()
			}
		})
		return nil
	})
}

// peerID makes something that looks like an ed25519 peer ID.
func peerID(i int) string {
	const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	var b strings.Builder
	b.WriteString("12D3KooW")
	x := uint64(i)*0x9e3779b97f4a7c15 + 12345
	for range 44 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b.WriteByte(alphabet[x%uint64(len(alphabet))])
	}
	return b.String()
}

type usage struct {
	Used  int64 `json:"used"`
	Limit int64 `json:"limit"`
}

// nodeEntry makes an entry of "nodes" as in /api/v1/records. A test changes the
// fields it is about in entry["record"].
func nodeEntry(i int, region, url string, stress float64, sessions usage) map[string]any {
	id := peerID(i)
	state := "active"
	if stress >= 0.9 {
		state = "full"
	}
	return map[string]any{
		"record": map[string]any{
			"node": id, "seq": 1790000000000 + i, "issued": time.Now().UTC(), "ttl_ms": 15000,
			"addrs": []string{fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", 4000+i), fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", 4000+i)},
			"url":   url, "media": fmt.Sprintf("127.0.0.1:%d", 5000+i), "state": state, "region": region, "zone": "",
			"uplink":   usage{int64(stress * 480e6), 500e6},
			"downlink": usage{int64(stress * 90e6), 0},
			"cores":    4, "cpu": stress * 0.62, "cpu_limit": 0.85,
			"packets": usage{int64(stress * 41000), 60000}, "sessions": sessions, "streams": usage{int64(i % 3), 0},
			"reserved": 0, "stress": stress, "release": "0.1.0", "features": []string{"cascade/1"}, "policy": 1,
		},
		"bytes": 331 + i, "valid": true, "error": "", "age_ms": 400 * (i%9 + 1), "ttl_left_ms": 15000 - 400*(i%9+1),
		"held_by": []string{peerID((i + 1) % 12), peerID((i + 4) % 12), peerID((i + 5) % 12), peerID((i + 9) % 12)},
		"signer":  id, "name": fmt.Sprintf("n%d", i+1),
	}
}

// carrier makes a carrier of a stream; parent < 0 is the origin.
func carrier(node, parent, depth, viewers, children int, region, url string, path ...int) map[string]any {
	c := map[string]any{
		"node": peerID(node), "url": url, "region": region, "origin": parent < 0, "depth": depth,
		"viewers": viewers, "children": children, "parent_rtt_ms": 0,
	}
	ids := make([]string, len(path))
	for i, p := range path {
		ids[i] = peerID(p)
	}
	c["path"] = ids
	if parent >= 0 {
		c["parent"] = peerID(parent)
		c["parent_rtt_ms"] = 8.25 * float64(depth) * float64(1+node%3)
	}
	return c
}

// busyNetwork has 12 nodes in 3 regions that carry 3 streams over 7 links; node
// 0 serves the page, and url is its URL.
func busyNetwork(url string) map[string]any {
	regions := []string{"eu-central", "us-east", "ap-south"}
	region := func(i int) string { return regions[i%3] }
	stress := []float64{0.95, 0.41, 0.22, 0.78, 0.12, 0.36, 0.05, 0.51, 0.18, 0.02, 0.66, 0.09}
	viewers := []int64{40, 16, 8, 31, 3, 14, 0, 20, 6, 0, 25, 2}
	var nodes []any
	for i := range 12 {
		u := fmt.Sprintf("http://127.0.0.1:%d", 9000+i)
		if i == 0 {
			u = url
		}
		e := nodeEntry(i, region(i), u, stress[i], usage{viewers[i], 40})
		if i == 10 {
			e["record"].(map[string]any)["state"] = "draining"
		}
		nodes = append(nodes, e)
	}
	c := func(node, parent, depth, viewers, children int, path ...int) map[string]any {
		return carrier(node, parent, depth, viewers, children, region(node), "", path...)
	}
	return map[string]any{
		"self": peerID(0), "network": "open", "nodes": nodes, "time": time.Now().UTC(),
		"streams": []any{
			map[string]any{"stream": "keynote", "tracks": []string{"video/VP8", "audio/opus"}, "viewers": 124, "carriers": []any{
				c(0, -1, 0, 38, 3, 0), c(3, 0, 1, 30, 1, 0, 3), c(1, 0, 1, 16, 1, 0, 1), c(10, 1, 2, 23, 0, 0, 1, 10), c(5, 3, 2, 14, 0, 0, 3, 5), c(2, 0, 1, 3, 0, 0, 2),
			}},
			map[string]any{"stream": "hall/camera.2", "tracks": []string{"video/H264", "audio/opus"}, "viewers": 25, "carriers": []any{
				c(7, -1, 0, 20, 1, 7), c(2, 7, 1, 5, 0, 7, 2),
			}},
			map[string]any{"stream": "backstage", "tracks": []string{"video/AV1"}, "viewers": 8, "carriers": []any{
				c(4, -1, 0, 2, 1, 4), c(8, 4, 1, 6, 0, 4, 8),
			}},
		},
	}
}

// quietNetwork has n nodes in one region and no stream.
func quietNetwork(url string, n int) map[string]any {
	nodes := []any{}
	for i := range n {
		u := fmt.Sprintf("http://127.0.0.1:%d", 9000+i)
		if i == 0 {
			u = url
		}
		nodes = append(nodes, nodeEntry(i, "", u, 0.03, usage{0, 40}))
	}
	return map[string]any{"self": peerID(0), "network": "open", "nodes": nodes, "streams": nil, "time": time.Now().UTC()}
}

// waitFor waits until ok holds, which another goroutine brings about.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}
