package whip

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/tracing"
	"weir/sfu/forward"
	"weir/sfu/meter"
	"weir/sfu/problem"
	"weir/sfu/rights"
	"weir/sfu/whip/extension"
)

// Kind is one of the two protocols that clients speak.
type Kind string

// Values of Kind, the first element of a path.
const (
	WHIP Kind = "whip"
	WHEP Kind = "whep"
)

// role returns the role of the client, for people.
func (k Kind) role() string {
	if k == WHIP {
		return "publisher"
	}
	return "viewer"
}

const (
	// connectTimeout bounds the time from a client's offer until media can
	// flow.
	connectTimeout = 15 * time.Second
	// consentTimeout is how long a client may go without an authenticated
	// connectivity check (RFC 7675, section 5.1). Other packets do not count,
	// since anyone can send them.
	consentTimeout = 30 * time.Second
	consentCheck   = 5 * time.Second
	// mediaCheck is the interval of checks whether a publisher's sections send.
	mediaCheck = time.Second
)

// A session is one WHIP or WHEP client. Its goroutine, watch, owns it.
type session struct {
	id     string
	kind   Kind
	server *Server
	entry  string        // ledger entry
	remote string        // the client's address, for people
	from   peer.ID       // the node that redirected the client here; "": none
	grant  *rights.Grant // nil: no access control
	left   func()        // called when it is over
	began  time.Time
	trace  string // ID of the request's trace

	// The following fields are set before media can flow.
	stream    *forward.Stream
	transport Transport
	publisher Publisher          // the transport of a publisher; nil for a viewer
	viewer    Viewer             // the transport of a viewer; nil for a publisher
	asked     time.Time          // when the client's request came
	first     *firstFrame        // of a viewer, if recorded
	release   func()             // releases a viewer's hold on the stream
	unname    func()             // releases a publisher's name
	inherited time.Time          // since when the stream that a publisher has taken over had no source; zero: it is its own
	extension *extension.Session // of a viewer; nil for a publisher

	gone chan string   // the reason to end the session; the first counts
	done chan struct{} // closed when the session is taken down
	pace pace

	// patch is held while a PATCH is served and while the connection closes.
	patch sync.Mutex
	over  bool // closed
	etag  string
}

func (a *request) newSession(ctx context.Context, entry string) *session {
	return &session{
		id: rand.Text(), trace: tracing.ID(ctx), kind: a.kind, server: a.server, entry: entry, remote: a.client.String(),
		began: time.Now(), asked: a.asked, gone: make(chan string, 1), done: make(chan struct{}), etag: newETag(),
	}
}

// setUpPublisher answers the client's offer as the origin of a new stream.
func (a *request) setUpPublisher(ctx context.Context, entry string) (*session, string, error) {
	s := a.newSession(ctx, entry)
	p, tracks, answer, err := s.server.cfg.Media.Publish(ctx, a.offer, s.tell)
	if err != nil {
		return nil, "", err
	}
	s.transport, s.publisher = p, p
	s.stream = forward.NewStream(a.name, tracks, time.Now())
	return s, answer, nil
}

// tell reports an event of the client's media.
func (s *session) tell(e event.Event) {
	if e.Kind == event.StreamStarted {
		now := time.Now()
		if !s.stream.Start(now) {
			return // it continues the stream of the publisher before
		}
		e.Elapsed = capacity.Milliseconds(now.Sub(s.began))
	}
	e.Stream, e.Session, e.Role, e.Client, e.Trace = s.stream.Name, s.id, s.kind.role(), s.remote, s.trace
	s.server.cfg.event(e)
}

// setUpViewer answers the client's offer to receive st.
func (a *request) setUpViewer(ctx context.Context, st *forward.Stream, entry string) (*session, string, error) {
	s := a.newSession(ctx, entry)
	t, answer, err := s.server.cfg.Media.View(ctx, st, a.offer, s.begun)
	if err != nil {
		return nil, "", err
	}
	for section := range t.Layers() {
		t.Choose(section, a.layer)
	}
	s.stream, s.transport, s.viewer = st, t, t
	s.extension = extension.New(t, st, s.done, &s.server.events, s.server.log)
	var ok bool
	if s.release, ok = st.Use(s, true); !ok {
		t.Close()
		return nil, "", problem.ErrEnded
	}
	s.first = awaitFirstFrame(ctx, s.server.tracer, s)
	return s, answer, nil
}

// begun records that the first packet of a kind was sent.
func (s *session) begun(kind forward.Kind, at time.Time) {
	m := meter.FirstVideo
	if kind == forward.Audio {
		m = meter.FirstAudio
	}
	s.first.sent(m, at)
	s.server.cfg.Measured(m, at.Sub(s.asked))
}

func newETag() string { return `"` + rand.Text() + `"` }

// end requests the end of the session. It does not wait.
func (s *session) end(why string) {
	select {
	case s.gone <- why:
	default:
	}
}

// admit registers the session and starts its goroutine.
func (s *Server) admit(sess *session) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		sess.first.ended(string(problem.Closing))
		sess.transport.Close()
		return problem.ErrClosing
	}
	s.sessions[sess.id] = sess
	sess.grant.MarkUsed()
	s.wg.Go(sess.watch)
	if sess.kind == WHIP && s.cfg.Published != nil {
		s.wg.Go(sess.settleName)
	}
	s.mu.Unlock()
	s.cfg.event(event.Event{
		Kind: event.SessionOpened, Stream: sess.stream.Name, Session: sess.id, Role: sess.kind.role(), Client: sess.remote, Peer: sess.from,
		Detail: notTaken(sess.transport.NotTaken()), Trace: sess.trace,
	})
	return nil
}

// notTaken describes, for people, the parts of an offer without media.
func notTaken(what []string) string {
	if len(what) == 0 {
		return ""
	}
	return "not taken: " + strings.Join(what, "; ")
}

// watch runs until the session is over, and takes it down.
func (s *session) watch() {
	connect := time.NewTimer(connectTimeout)
	defer connect.Stop()
	consent := time.NewTicker(consentCheck)
	defer consent.Stop()
	media := time.NewTicker(mediaCheck)
	defer media.Stop()
	var since time.Time // when media could flow
	connected := s.transport.Connected()
	over := s.stream.Done()
	if s.kind == WHIP {
		over = nil
	}
	late := false // it was told that packets were
	why := ""
	for why == "" {
		select {
		case why = <-s.gone:
		case <-over:
			why = "the stream has ended"
		case <-s.server.ctx.Done():
			why = "this node is closing"
		case <-s.grant.Done():
			why = s.grant.Reason().Words()
		case why = <-s.transport.Ended():
		case <-connected:
			connected = nil
			since = time.Now()
			s.first.connected()
		case <-connect.C:
			if connected != nil {
				why = fmt.Sprintf("no media connection within %v", connectTimeout)
			}
		case now := <-consent.C:
			// Before the first check the connect timer applies.
			if silence, ok := s.transport.Silence(now); connected == nil && ok && silence >= consentTimeout {
				why = fmt.Sprintf("no connectivity check for %v", consentTimeout)
			}
		case now := <-media.C:
			if s.publisher != nil && connected == nil {
				s.publisher.Look(now, since)
			}
			if n := s.transport.Traffic().Skipped; n > 0 && !late {
				late = true
				s.tell(event.Event{Kind: event.MediaDropped, Reason: "late", Detail: fmt.Sprintf("%d packets could not be sent in time, and were skipped: this node has more to send than it can", n)})
			}
		}
	}
	s.takeDown(why)
}

// takeDown releases all that the session holds, and waits for its transport.
func (s *session) takeDown(why string) {
	server := s.server
	s.transport.Stop()
	if s.kind == WHIP {
		server.names.finish(s, why)
	} else {
		s.release()
	}
	server.mu.Lock()
	delete(server.sessions, s.id)
	server.ended.add(s.id)
	server.mu.Unlock()
	server.cfg.Ledger.End(s.entry)
	s.patch.Lock() // a restart under way would leak an ICE agent
	s.over = true
	s.transport.Close()
	s.patch.Unlock()
	s.grant.Close()
	s.left()
	close(s.done)
	total := s.transport.Traffic()
	s.first.ended(endWord(why))
	server.cfg.event(event.Event{
		Kind: event.SessionClosed, Stream: s.stream.Name, Session: s.id, Role: s.kind.role(), Client: s.remote, Reason: endWord(why), Detail: why, Trace: s.trace,
		Elapsed: capacity.Milliseconds(time.Since(s.began)), Packets: total.Packets, Bytes: total.Bytes, Lost: total.Lost,
	})
}
