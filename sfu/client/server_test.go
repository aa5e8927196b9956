package client

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// echoServer is a minimal WHIP and WHEP server with one stream, whose packets
// it forwards unchanged from the publisher to every viewer.
type echoServer struct {
	*httptest.Server
	t *testing.T

	mu        sync.Mutex
	pcs       map[string]*webrtc.PeerConnection // by resource path
	deleted   []string
	publisher *webrtc.PeerConnection
	ssrcs     []uint32 // of the publisher
	tracks    []*webrtc.TrackLocalStaticRTP
	viewers   []viewing
	packets   int
	ready     chan struct{} // closed when want tracks have come
	want      int

	full            bool                   // full ICE, not lite; set before use
	loseIn, loseOut func(*rtp.Header) bool // selects packets to lose; set before use
	wg              sync.WaitGroup
}

// viewing is a track sent to a viewer.
type viewing struct {
	pc   *webrtc.PeerConnection
	kind webrtc.RTPCodecType
	ssrc uint32
}

// loser loses packets between the network and the rest.
type loser struct {
	interceptor.NoOp
	in, out func(*rtp.Header) bool // nil: none
}

func (l *loser) NewInterceptor(string) (interceptor.Interceptor, error) { return l, nil }

func (l *loser) BindRemoteStream(_ *interceptor.StreamInfo, r interceptor.RTPReader) interceptor.RTPReader {
	if l.in == nil {
		return r
	}
	return interceptor.RTPReaderFunc(func(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		for {
			n, attr, err := r.Read(b, a)
			if err != nil {
				return n, attr, err
			}
			var h rtp.Header
			if _, err := h.Unmarshal(b[:n]); err == nil && l.in(&h) {
				continue
			}
			return n, attr, nil
		}
	})
}

func (l *loser) BindLocalStream(_ *interceptor.StreamInfo, w interceptor.RTPWriter) interceptor.RTPWriter {
	if l.out == nil {
		return w
	}
	return interceptor.RTPWriterFunc(func(h *rtp.Header, payload []byte, a interceptor.Attributes) (int, error) {
		if l.out(h) {
			return len(payload), nil
		}
		return w.Write(h, payload, a)
	})
}

// newEchoServer expects a publisher of want tracks.
func newEchoServer(t *testing.T, want int) *echoServer {
	t.Helper()
	s := &echoServer{t: t, pcs: map[string]*webrtc.PeerConnection{}, ready: make(chan struct{}), want: want}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /whip", s.whip)
	mux.HandleFunc("POST /whep", s.whep)
	mux.HandleFunc("DELETE /session/{id}", s.delete)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		s.Server.Close()
		s.mu.Lock()
		pcs := s.pcs
		s.pcs = nil
		s.mu.Unlock()
		for _, pc := range pcs {
			if err := pc.GracefulClose(); err != nil {
				t.Errorf("close server's connection: %v", err)
			}
		}
		s.wg.Wait()
	})
	return s
}

func (s *echoServer) peer() (*webrtc.PeerConnection, error) {
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		return nil, err
	}
	for _, uri := range []string{AbsCaptureTime, midURI} {
		for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
			if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, kind); err != nil {
				return nil, err
			}
		}
	}
	registry := &interceptor.Registry{}
	registry.Add(&loser{in: s.loseIn, out: s.loseOut}) // first, so nearest to the network
	generator, _ := nack.NewGeneratorInterceptor(nack.GeneratorMaxNacksPerPacket(3))
	registry.Add(generator)
	responder, _ := nack.NewResponderInterceptor()
	registry.Add(responder)
	receiver, _ := report.NewReceiverInterceptor()
	registry.Add(receiver)
	var settings webrtc.SettingEngine
	settings.SetLite(!s.full)
	settings.SetIncludeLoopbackCandidate(true)
	return webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(settings)).
		NewPeerConnection(webrtc.Configuration{})
}

// answer completes the offer/answer exchange for pc and writes the 201.
func (s *echoServer) answer(w http.ResponseWriter, r *http.Request, pc *webrtc.PeerConnection, offer string) {
	id := fmt.Sprintf("/session/%p", pc)
	s.mu.Lock()
	s.pcs[id] = pc
	s.mu.Unlock()
	err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer})
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	answer, err := pc.CreateAnswer(nil)
	if err == nil {
		err = pc.SetLocalDescription(answer)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	<-gathered
	w.Header().Set("Content-Type", "application/sdp; charset=utf-8")
	w.Header().Set("Location", ".."+id) // relative to /x/whip
	if r.URL.Path == "/whip" || r.URL.Path == "/whep" {
		w.Header().Set("Location", id)
	}
	w.Header().Set("ETag", `"one"`)
	w.WriteHeader(http.StatusCreated)
	io.WriteString(w, pc.LocalDescription().SDP)
}

func (s *echoServer) read(w http.ResponseWriter, r *http.Request) (string, bool) {
	if got := r.Header.Get("Content-Type"); got != "application/sdp" {
		http.Error(w, "content type "+got, http.StatusUnsupportedMediaType)
		return "", false
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || len(body) == 0 {
		http.Error(w, "no offer", http.StatusBadRequest)
		return "", false
	}
	return string(body), true
}

func (s *echoServer) whip(w http.ResponseWriter, r *http.Request) {
	offer, ok := s.read(w, r)
	if !ok {
		return
	}
	pc, err := s.peer()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.mu.Lock()
	s.publisher = pc
	s.mu.Unlock()
	pc.OnTrack(func(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
		local, err := webrtc.NewTrackLocalStaticRTP(remote.Codec().RTPCodecCapability, remote.Kind().String(), "echo")
		if err != nil {
			s.t.Errorf("forwarding track: %v", err)
			return
		}
		s.mu.Lock()
		s.tracks = append(s.tracks, local)
		s.ssrcs = append(s.ssrcs, uint32(remote.SSRC()))
		if len(s.tracks) == s.want {
			close(s.ready)
		}
		s.wg.Add(1)
		s.wg.Go(func() { s.forwardReports(remote.Kind(), receiver) })
		s.mu.Unlock()
		defer s.wg.Done()
		for {
			packet, _, err := remote.ReadRTP()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.packets++
			s.mu.Unlock()
			_ = local.WriteRTP(packet)
		}
	})
	s.answer(w, r, pc, offer)
}

func (s *echoServer) whep(w http.ResponseWriter, r *http.Request) {
	offer, ok := s.read(w, r)
	if !ok {
		return
	}
	select {
	case <-s.ready:
	case <-time.After(5 * time.Second):
		http.Error(w, "nothing published", http.StatusNotFound)
		return
	}
	pc, err := s.peer()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.mu.Lock()
	tracks := s.tracks
	s.mu.Unlock()
	for _, track := range tracks {
		sender, err := pc.AddTrack(track)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		s.mu.Lock()
		s.viewers = append(s.viewers, viewing{pc, track.Kind(), uint32(sender.GetParameters().Encodings[0].SSRC)})
		s.mu.Unlock()
		s.wg.Go(func() {
			for {
				packets, _, err := sender.ReadRTCP()
				if err != nil {
					return
				}
				for _, p := range packets {
					if _, ok := p.(*rtcp.PictureLossIndication); ok {
						s.pli()
					}
				}
			}
		})
	}
	s.answer(w, r, pc, offer)
}

// forwardReports forwards the publisher's sender reports.
func (s *echoServer) forwardReports(kind webrtc.RTPCodecType, receiver *webrtc.RTPReceiver) {
	for {
		packets, _, err := receiver.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			sr, ok := p.(*rtcp.SenderReport)
			if !ok {
				continue
			}
			s.mu.Lock()
			viewers := s.viewers
			s.mu.Unlock()
			for _, v := range viewers {
				if v.kind == kind {
					sent := *sr
					sent.SSRC = v.ssrc
					_ = v.pc.WriteRTCP([]rtcp.Packet{&sent})
				}
			}
		}
	}
}

// pli requests a keyframe from the publisher.
func (s *echoServer) pli() {
	s.mu.Lock()
	pc, ssrcs := s.publisher, s.ssrcs
	s.mu.Unlock()
	for _, ssrc := range ssrcs {
		_ = pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: ssrc}})
	}
}

func (s *echoServer) delete(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	pc := s.pcs[r.URL.Path]
	delete(s.pcs, r.URL.Path)
	s.deleted = append(s.deleted, r.Header.Get("If-Match"))
	s.mu.Unlock()
	if pc == nil {
		http.Error(w, "no such session", http.StatusNotFound)
		return
	}
	if err := pc.GracefulClose(); err != nil {
		s.t.Errorf("close server's connection: %v", err)
	}
}
