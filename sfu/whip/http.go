package whip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/tracing"
	"weir/sfu/forward"
	"weir/sfu/problem"
	"weir/sfu/proxied"
	"weir/sfu/sdp"
	"weir/sfu/whip/extension"
)

const (
	typeSDP      = "application/sdp"
	typeFragment = "application/trickle-ice-sdpfrag"

	// SetupTimeout bounds one request: finding and reserving a helper, pulling
	// the stream, answering.
	SetupTimeout = 8 * time.Second
	// relayTimeout bounds the helper's answer in Overflow Relay. The helper may
	// hold the request while no node has room for its pull.
	relayTimeout = SetupTimeout + DefaultRoomWait
	// DefaultRoomWait is about how long viewers wait for a carrier with room.
	DefaultRoomWait = 10 * time.Second
	// retryNotLive is the Retry-After for a stream that is not live yet.
	retryNotLive = 2 * time.Second
	// retryBusy is the Retry-After while no node has room.
	retryBusy = 5 * time.Second
	// MaxWait bounds the wait that a client requests with ?wait=.
	MaxWait = 30 * time.Second
)

// Handler serves WHIP at /whip/{stream}, WHEP at /whep/{stream}, and the
// sessions of both at /session/{id}.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /whip/{stream...}", s.post(WHIP))
	mux.HandleFunc("POST /whep/{stream...}", s.post(WHEP))
	mux.HandleFunc("PATCH /session/{id}", s.patch)
	mux.HandleFunc("DELETE /session/{id}", s.delete)
	for _, pattern := range []string{"/whip/{stream...}", "/whep/{stream...}"} {
		mux.HandleFunc("OPTIONS "+pattern, preflight("POST, OPTIONS"))
		mux.HandleFunc(pattern, notAllowed("POST, OPTIONS", "send an SDP offer by POST"))
	}
	mux.HandleFunc("OPTIONS /session/{id}", preflight("PATCH, DELETE, OPTIONS"))
	extension.Routes(mux, s.extension, preflight)
	mux.HandleFunc("/session/{id}", notAllowed("PATCH, DELETE, OPTIONS", "a session takes PATCH and DELETE"))
	known := s.traced(problem.Mux(mux))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Origins.allow(w, r) {
			w.Header().Set("Access-Control-Expose-Headers", "Location, ETag, Link, Retry-After, Accept-Patch, WWW-Authenticate, "+tracing.Header)
		}
		known.ServeHTTP(w, r)
	})
}

// preflight answers CORS preflights and the discovery of RFC 9725 by OPTIONS.
// It never requires credentials and never redirects: browsers would give up.
func preflight(methods string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if h.Get(allowOrigin) != "" {
			h.Set("Access-Control-Allow-Methods", methods)
			h.Set("Access-Control-Allow-Headers", "Content-Type, Authorization, If-Match, Traceparent")
			h.Set("Access-Control-Max-Age", "86400")
		}
		if strings.HasPrefix(methods, "POST") {
			h.Set("Accept-Post", typeSDP)
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

func notAllowed(methods, advice string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", methods)
		problem.New(problem.BadMethod, r.Method+" is not served here: "+advice).Write(w)
	}
}

// body reads a request's body of the wanted media type, at most [sdp.MaxBytes]
// bytes. The error is a [problem.Problem].
func body(w http.ResponseWriter, r *http.Request, want string) ([]byte, error) {
	if got, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || got != want {
		return nil, problem.New(problem.BadMediaType, fmt.Sprintf("Content-Type is %q: send %s", r.Header.Get("Content-Type"), want))
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, sdp.MaxBytes))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		// A client that is still sending when the connection is closed loses
		// the answer.
		_, _ = io.CopyN(io.Discard, r.Body, 4*sdp.MaxBytes)
		return nil, problem.New(problem.TooLarge, fmt.Sprintf("the body is longer than %d bytes", sdp.MaxBytes))
	}
	if err != nil {
		return nil, problem.New(problem.BadBody, "the body did not arrive whole")
	}
	return b, nil
}

// post serves both WHIP and WHEP.
func (s *Server) post(kind Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := s.open(w, r, kind); err != nil {
			s.fail(w, r, err)
		}
	}
}

func (s *Server) open(w http.ResponseWriter, r *http.Request, kind Kind) error {
	asked, name := time.Now(), r.PathValue("stream")
	if err := capacity.ValidStreamName(name); err != nil {
		return problem.New(problem.BadStreamName, err.Error())
	}
	grant, ticket, err := s.authorize(r.Context(), r, kind, name)
	if err != nil {
		return err
	}
	settled := false
	defer func() {
		if !settled {
			grant.Close()
		}
	}()
	raw, err := body(w, r, typeSDP)
	if err != nil {
		return err
	}
	o, err := sdp.ParseOffer(raw)
	if err != nil {
		return err
	}
	wait, err := waitOf(r)
	if err != nil {
		return err
	}
	layer, err := layerOf(r)
	if err != nil {
		return err
	}

	// The request has been read as a whole: the server's read deadline would
	// end it while it waits.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stop := context.AfterFunc(s.ctx, cancel)
	defer stop()

	client := proxied.Of(r)
	release, err := s.admission.Hold(client.Group())
	if err != nil {
		return err
	}
	defer func() {
		if !settled {
			release()
		}
	}()
	a := &request{asked: asked, server: s, kind: kind, name: name, offer: o, raw: raw, client: client, until: time.Now().Add(wait), layer: layer, ticket: ticket, grant: grant, release: release}
	a.visit = s.admission.Visit(kind == WHIP, client.Group(), name, len(raw))
	defer a.visit.Leave()
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(tracing.Stream.String(name), tracing.Role.String(kind.role()))
	}
	sess, answer, err := a.serve(ctx)
	var onward *redirect
	if errors.As(err, &onward) {
		return s.redirector.redirect(ctx, w, a, onward)
	}
	if err != nil {
		return err
	}
	settled = true // the session closes grant and calls release
	h, url := w.Header(), s.cfg.base(r)+"/session/"+sess.id
	h.Set("Content-Type", typeSDP)
	h.Set("Location", url)
	if sess.extension != nil {
		h["Link"] = extension.Links(url)
	}
	h.Set("ETag", sess.etag)
	h.Set("Accept-Patch", typeFragment)
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, answer)
	return nil
}

// waitOf returns how long the client accepts to wait for the stream to go live.
func waitOf(r *http.Request) (time.Duration, error) {
	v := r.URL.Query().Get("wait")
	if v == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(v)
	if err != nil || wait < 0 || wait > MaxWait {
		return 0, problem.New(problem.BadWait, fmt.Sprintf("wait=%s: want a duration up to %v, such as 10s", v, MaxWait))
	}
	return wait, nil
}

// layerOf returns the layers of video that a viewer chooses by ?layer=RID,
// ?spatial=N and ?temporal=N. A RID that the stream does not have chooses the
// best: another publisher may have others.
func layerOf(r *http.Request) (c forward.Choice, err error) {
	query := r.URL.Query()
	if c.RID = query.Get("layer"); len(c.RID) > maxRID {
		return c, problem.New(problem.BadParameter, fmt.Sprintf("layer= is longer than %d bytes", maxRID))
	}
	for _, p := range []struct {
		key string
		to  **uint8
	}{{"spatial", &c.Spatial}, {"temporal", &c.Temporal}} {
		v := query.Get(p.key)
		if v == "" {
			continue
		}
		n, err := strconv.ParseUint(v, 10, 3)
		if err != nil {
			return c, problem.New(problem.BadParameter, fmt.Sprintf("%s=%s: want the number of a layer, 0 to 7", p.key, capacity.Printable(v, 20)))
		}
		highest := uint8(n)
		*p.to = &highest
	}
	return c, nil
}

// maxRID bounds a RID in an address, in bytes.
const maxRID = 256

// base returns the public URL of this node.
func (c *Config) base(r *http.Request) string {
	if c.PublicURL != "" {
		return strings.TrimSuffix(c.PublicURL, "/")
	}
	return proxied.Of(r).Base()
}

// session returns the session that a request names.
func (s *Server) session(r *http.Request) (*session, error) {
	id := r.PathValue("id")
	s.mu.Lock()
	defer s.mu.Unlock()
	if sess := s.sessions[id]; sess != nil {
		return sess, nil
	}
	if _, ended := s.ended.ids[id]; ended {
		return nil, problem.New(problem.SessionEnded, "the session has ended: start a new one by POST")
	}
	return nil, problem.New(problem.NoSession, "there is no such session here")
}

// extension finds the extensions of the session that a request names, or answers
// it.
func (s *Server) extension(w http.ResponseWriter, r *http.Request) (of *extension.Session, url string) {
	sess, err := s.session(r)
	if err == nil && sess.extension == nil {
		err = problem.New(problem.NotFound, "a publisher's session has no extensions")
	}
	if err != nil {
		s.fail(w, r, err)
		return nil, ""
	}
	return sess.extension, s.cfg.base(r) + "/session/" + sess.id
}

// patch serves trickled candidates and ICE restarts (RFC 9725, section 4.3).
func (s *Server) patch(w http.ResponseWriter, r *http.Request) {
	if err := s.trickle(w, r); err != nil {
		s.fail(w, r, err)
	}
}

func (s *Server) trickle(w http.ResponseWriter, r *http.Request) error {
	sess, err := s.session(r)
	if err != nil {
		return err
	}
	raw, err := body(w, r, typeFragment)
	if err != nil {
		return err
	}
	f, err := sdp.ParseFragment(raw)
	if err != nil {
		return problem.New(problem.BadFragment, err.Error())
	}
	sess.patch.Lock()
	defer sess.patch.Unlock()
	if sess.over {
		return problem.New(problem.SessionEnded, "the session has ended: start a new one by POST")
	}
	restart := f.Ufrag != "" && !sess.transport.Knows(f.Ufrag)
	// A client that trickles may omit If-Match, since its ufrag names the ICE
	// session. A restart applies to any ICE session ("*").
	if match := r.Header.Get("If-Match"); match != "" && match != "*" && match != sess.etag {
		return problem.New(problem.OldSession, "If-Match is not this session's ETag: the ICE session it meant is over")
	}
	if restart {
		if f.Pwd == "" {
			return problem.New(problem.BadFragment, "a=ice-ufrag without a=ice-pwd")
		}
		ctx, cancel := context.WithTimeout(r.Context(), SetupTimeout)
		defer cancel()
		fragment, err := sess.transport.Restart(ctx, f.Ufrag, f.Pwd)
		if err != nil {
			return err
		}
		sess.etag = newETag()
		w.Header().Set("Content-Type", typeFragment)
		w.Header().Set("ETag", sess.etag)
		_, _ = io.WriteString(w, fragment)
		return nil
	}
	sess.transport.Add(f)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// delete ends a session at its client's request. It also answers 200 if the
// connection of the client has ended first.
func (s *Server) delete(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	s.mu.Lock()
	sess := s.sessions[id]
	deleted, ended := s.ended.ids[id]
	if sess != nil || ended && !deleted {
		s.ended.deleted(id)
	}
	s.mu.Unlock()
	switch {
	case deleted:
		s.fail(w, r, problem.New(problem.SessionEnded, "the session has been deleted already"))
	case sess != nil:
		sess.end("deleted by the client")
		select {
		case <-sess.done:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusOK)
	case ended:
		w.WriteHeader(http.StatusOK)
	default:
		s.fail(w, r, problem.New(problem.NoSession, "there is no such session here"))
	}
}
