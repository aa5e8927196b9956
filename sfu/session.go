package sfu

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/pion/webrtc/v4"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/tracing"
	"weir/sfu/forward"
	"weir/sfu/problem"
	"weir/sfu/rights"
	"weir/sfu/rtc"
	"weir/sfu/sdp"
)

type sessionKind string

const (
	kindWHIP sessionKind = "whip"
	kindWHEP sessionKind = "whep"
)

// role is what the client is, for people.
func (k sessionKind) role() string {
	if k == kindWHIP {
		return "publisher"
	}
	return "viewer"
}

const (
	// connectTimeout is how long a client may take from its offer to media.
	connectTimeout = 15 * time.Second
	// consentTimeout is how long a client may go without an authenticated
	// connectivity check (RFC 7675, section 5.1). Other packets do not count,
	// since anyone can send them.
	consentTimeout = 30 * time.Second
	consentCheck   = 5 * time.Second
	// giveWayAfter is how long a publisher may send nothing before another may
	// take its stream's name.
	giveWayAfter = 3 * time.Second
	// mediaCheck is between two looks at whether a publisher's sections send.
	mediaCheck = time.Second
)

// A session is one WHIP or WHEP client. Its goroutine, watch, owns it.
type session struct {
	fence
	id     string
	kind   sessionKind
	sfu    *SFU
	pc     *rtc.Transport
	stream *Stream
	entry  string        // in the ledger
	remote string        // who asked, for people
	from   peer.ID       // the node that sent the client here; "": none did
	grant  *rights.Grant // nil: no right is asked for
	left   func()        // told when it is over
	began  time.Time
	asked  time.Time   // when the request for it came; set before media can flow
	first  *firstFrame // a viewer's, if recorded; likewise
	trace  string      // ID of the request's trace

	gone      chan string   // why the session is to end; the first counts
	connected chan struct{} // closed when media can flow
	done      chan struct{} // closed when nothing of it is left

	pace    pace
	outs    []*rtc.LocalTrack // a viewer's
	in      *rtc.Ingress      // a publisher's
	release func()            // a viewer's hold on the stream
	unname  func()            // gives up a publisher's name

	notTaken []string // sections and tracks that there is no media for, and why

	// patch is held while a PATCH is served, and while the connection closes.
	patch      sync.Mutex
	over       bool // closed
	etag       string
	offer      *sdp.Offer      // the client's last, to build a restart on
	candidates []sdp.Candidate // that were trickled

	mu     sync.Mutex
	unused map[string]int // candidates that are of no use, by what they are
}

func (s *SFU) newSession(ctx context.Context, kind sessionKind, media *webrtc.MediaEngine, o *sdp.Offer, entry, remote string) (*session, error) {
	sess := &session{
		id: rand.Text(), trace: tracing.ID(ctx), kind: kind, sfu: s, entry: entry, remote: remote, began: time.Now(),
		gone: make(chan string, 1), connected: make(chan struct{}), done: make(chan struct{}),
		etag: newETag(), offer: o, unused: maps.Clone(o.Skipped), notTaken: o.Refused(),
	}
	var err error
	if kind == kindWHIP {
		sess.in = rtc.NewIngress(&s.drops, sess.end, func(e Event) {
			if e.Kind == event.StreamStarted {
				now := time.Now()
				if !sess.stream.Start(now) {
					return // it goes on from the publisher before
				}
				e.Detail, e.Elapsed = sess.stream.offers(), milliseconds(now.Sub(sess.began))
			}
			e.Stream, e.Session, e.Role, e.Client, e.Trace = sess.stream.Name, sess.id, kind.role(), remote, sess.trace
			s.event(e)
		})
		sess.pc, err = s.engine.Publisher(media, sess.in)
	} else {
		sess.pc, err = s.engine.Viewer(media)
	}
	if err != nil {
		return nil, err
	}
	var once sync.Once
	sess.pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		switch state {
		case webrtc.PeerConnectionStateConnected:
			once.Do(func() {
				close(sess.connected)
				sess.start(sess.begin)
			})
		case webrtc.PeerConnectionStateFailed:
			sess.end("the client fell silent")
		case webrtc.PeerConnectionStateClosed:
			sess.end("the client closed the connection")
		}
	})
	return sess, nil
}

func newETag() string { return `"` + rand.Text() + `"` }

// end asks the session to end. It does not wait.
func (s *session) end(why string) {
	select {
	case s.gone <- why:
	default:
	}
}

// begin starts media: the connection is up.
func (s *session) begin() {
	s.first.connected()
	for _, o := range s.outs {
		o.Track.Add(o.DownTrack)
	}
	if s.in != nil {
		s.in.Reachable()
	}
}

// answer gives the client's offer to the PeerConnection and returns the answer,
// with all of our candidates in it.
func (s *session) answer(ctx context.Context, o *sdp.Offer) (string, error) {
	if err := s.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: o.Text()}); err != nil {
		return "", sdp.Error(err.Error())
	}
	// Left alone, pion answers all sections of a kind with one payload type.
	for _, tr := range s.pc.GetTransceivers() {
		for _, section := range o.Taken {
			if tr.Mid() != section.PionMID() {
				continue
			}
			if err := tr.SetCodecPreferences(section.Codec.WithFeedback().Params()); err != nil {
				return "", sdp.Error(err.Error())
			}
		}
	}
	for _, o := range s.outs {
		if o.Bound() {
			continue // a restart
		}
		sender, err := s.pc.AddTrack(o)
		if err != nil {
			return "", err
		}
		s.start(func() { rtc.ReadRTCP(sender, func() *forward.DownTrack { return o.DownTrack }) })
	}
	answer, err := s.pc.CreateAnswer(nil)
	if err != nil {
		return "", sdp.Error(err.Error())
	}
	local, err := s.pc.SetLocal(ctx, answer)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", sdp.Error(err.Error())
	}
	s.pc.AwaitChecking(ctx)
	return sdp.InOrder(local), nil
}

// discard closes a session that was never begun.
func (s *session) discard() {
	s.shut()
	_ = s.pc.GracefulClose()
	s.wait()
}

// admit takes the session in and watches over it from now on.
func (s *SFU) admit(sess *session) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		sess.first.ended(string(problem.Closing))
		return problem.ErrClosing
	}
	s.sessions[sess.id] = sess
	sess.grant.Keep()
	s.wg.Go(sess.watch)
	if sess.kind == kindWHIP && s.cfg.Published != nil {
		s.wg.Go(sess.settleName)
	}
	s.mu.Unlock()
	s.event(Event{
		Kind: event.SessionOpened, Stream: sess.stream.Name, Session: sess.id, Role: sess.kind.role(), Client: sess.remote, Peer: sess.from,
		Detail: notTaken(sess.notTaken), Trace: sess.trace,
	})
	return nil
}

// notTaken tells people what of an offer there is no media for.
func notTaken(what []string) string {
	if len(what) == 0 {
		return ""
	}
	return "not taken: " + strings.Join(what, "; ")
}

// nameSettles is when it is looked up again, after a publisher has come, whether
// its name is taken elsewhere: when records should tell everywhere, and when at
// the latest they do.
var nameSettles = []time.Duration{3 * time.Second, 15 * time.Second}

// settleName ends the session if another node took its name at the same time:
// neither saw the other's record then. All look, and the one with the smallest
// peer ID stays.
func (s *session) settleName() {
	for _, after := range nameSettles {
		settled := time.NewTimer(time.Until(s.began.Add(after)))
		select {
		case <-settled.C:
		case <-s.done:
			settled.Stop()
			return
		}
		// If that is not known now, the next look will tell, and viewers find
		// either.
		nodes, _ := s.sfu.cfg.Published(s.sfu.ctx, s.stream.Name)
		for _, node := range nodes {
			if node < s.sfu.cfg.Self {
				s.end("its name was taken at the same time at node " + node.String())
				return
			}
		}
	}
}

// watch runs until the session is over, and takes it down.
func (s *session) watch() {
	connect := time.NewTimer(connectTimeout)
	defer connect.Stop()
	consent := time.NewTicker(consentCheck)
	defer consent.Stop()
	media := time.NewTicker(mediaCheck)
	defer media.Stop()
	var connected time.Time
	over := s.stream.Over()
	if s.kind == kindWHIP {
		over = nil
	}
	why := ""
	for why == "" {
		select {
		case why = <-s.gone:
		case <-over:
			why = "the stream has ended"
		case <-s.sfu.ctx.Done():
			why = "this node is closing"
		case <-s.grant.Over():
			why = s.grant.Why().Words()
		case <-connect.C:
			select {
			case <-s.connected:
			default:
				why = fmt.Sprintf("no media connection within %v", connectTimeout)
			}
		case now := <-consent.C:
			if !s.consents(now) {
				why = fmt.Sprintf("no connectivity check for %v", consentTimeout)
			}
		case now := <-media.C:
			if s.in == nil {
				break
			}
			select {
			case <-s.connected:
				if connected.IsZero() {
					connected = now
				}
				s.in.Look(now, connected)
			default:
			}
		}
	}

	sfu := s.sfu
	s.shut()
	for _, o := range s.outs {
		o.Track.Remove(o.DownTrack)
	}
	if s.kind == kindWHIP {
		s.in.Close()
		sfu.finish(s)
	} else {
		s.release()
	}
	sfu.mu.Lock()
	delete(sfu.sessions, s.id)
	sfu.tombs.add(s.id)
	sfu.mu.Unlock()
	sfu.cfg.Ledger.End(s.entry)
	s.patch.Lock() // a restart that is under way would make an ICE agent that nobody ends
	s.over = true
	_ = s.pc.GracefulClose()
	s.patch.Unlock()
	s.wait()
	s.grant.Close()
	s.left()
	close(s.done)
	total := s.traffic()
	s.first.ended(endWord(why))
	sfu.event(Event{
		Kind: event.SessionClosed, Stream: s.stream.Name, Session: s.id, Role: s.kind.role(), Client: s.remote, Reason: endWord(why), Detail: why, Trace: s.trace,
		Elapsed: milliseconds(time.Since(s.began)), Packets: total.packets, Bytes: total.bytes, Lost: total.lost,
	})
}

// consents reports whether the client has shown lately that it still wants
// media. Before the first check there is the connect timer.
func (s *session) consents(now time.Time) bool {
	select {
	case <-s.connected:
	default:
		return true
	}
	silence, ok := s.pc.Silence(now)
	return !ok || silence < consentTimeout
}

// publisher sets a WHIP client up as the stream's origin.
func (s *SFU) publisher(ctx context.Context, name string, o *sdp.Offer, entry, remote string) (*session, string, error) {
	o = o.Again()
	media, err := rtc.NewMedia()
	if err != nil {
		return nil, "", err
	}
	// One codec of each section, so that viewers can be answered before the first
	// packet comes.
	var (
		tracks   []*forward.Track
		sections []*sdp.Section // of each track
	)
	count := map[webrtc.RTPCodecType]int{}
	used := map[webrtc.PayloadType]string{}
	for _, section := range o.Sections {
		if !o.InUse(section) {
			continue
		}
		if !section.Sends {
			section.Why = "nothing is sent in it"
			continue
		}
		codec, ok := section.Preferred(used)
		if !ok {
			return nil, "", section.NotTaken("taken is " + sdp.CodecNames(section.Kind))
		}
		sdp.Claim(used, &codec)
		if err := rtc.Register(media, codec); err != nil {
			return nil, "", sdp.Error(err.Error())
		}
		o.Take(section, codec)
		t := &forward.Track{ID: fmt.Sprintf("%s%d", section.Kind, count[section.Kind]), Codec: rtc.CodecOf(codec.RTPCodecCapability)}
		if t.Sets = forward.ParseSprop(codec.Sprop); t.Sets != nil && sdp.FmtpValue(t.Codec.Fmtp, "profile-level-id") == "" {
			t.Codec.Fmtp = strings.TrimPrefix(t.Codec.Fmtp+";profile-level-id="+t.Sets.Profile(), ";")
		}
		count[section.Kind]++
		tracks, sections = append(tracks, t), append(sections, section)
	}
	if len(tracks) == 0 {
		return nil, "", fmt.Errorf("%w: the offer must send at least one track of %s, %s", sdp.ErrNoCodec,
			sdp.CodecNames(webrtc.RTPCodecTypeAudio), sdp.CodecNames(webrtc.RTPCodecTypeVideo))
	}
	if err := o.Settle(); err != nil {
		return nil, "", err
	}

	sess, err := s.newSession(ctx, kindWHIP, media, o, entry, remote)
	if err != nil {
		return nil, "", err
	}
	for i, t := range tracks {
		sess.in.Take(sections[i], t, sess.pc.RequestKeyframe)
	}
	sess.stream = newStream(name, true, tracks, []peer.ID{s.cfg.Self}, time.Now())
	answer, err := sess.answer(ctx, o)
	if err != nil {
		sess.discard()
		return nil, "", err
	}
	sess.in.Negotiated(sess.pc.PeerConnection)
	return sess, o.AnswerText(answer), nil
}

// viewer sets a WHEP client up to receive st.
func (s *SFU) viewer(ctx context.Context, st *Stream, o *sdp.Offer, entry, remote string) (*session, string, error) {
	o = o.Again()
	media, err := rtc.NewMedia()
	if err != nil {
		return nil, "", err
	}
	// Each track goes into the first section that can take it. A section that
	// asks for media and gets none, although there is some of its kind left, is
	// one that the viewer would look at in vain.
	carries := map[*sdp.Section]*forward.Track{}
	used := map[webrtc.PayloadType]string{}
	var left []*forward.Track
	for _, t := range st.Tracks {
		into := slices.IndexFunc(o.Sections, func(section *sdp.Section) bool {
			if carries[section] != nil || !o.InUse(section) || !section.Receives || section.Kind != sdp.KindOf(t.Codec.MimeType) {
				return false
			}
			codec, ok := section.Match(rtc.CapabilityOf(t.Codec), used)
			if !ok {
				return false
			}
			sdp.Claim(used, &codec)
			o.Take(section, codec)
			carries[section] = t
			return true
		})
		if into < 0 {
			left = append(left, t)
		}
	}
	has := st.offers()
	for _, section := range o.Sections {
		switch {
		case carries[section] != nil || !o.InUse(section):
		case !section.Receives:
			section.Why = "nothing is received in it"
		default:
			section.Why = "the stream has no further " + section.Media
			if !slices.ContainsFunc(st.Tracks, func(t *forward.Track) bool { return sdp.KindOf(t.Codec.MimeType) == section.Kind }) {
				section.Why = "the stream has no " + section.Media
			}
			if slices.ContainsFunc(left, func(t *forward.Track) bool { return sdp.KindOf(t.Codec.MimeType) == section.Kind }) {
				return nil, "", section.NotTaken("the stream has " + has + ": offer to receive that")
			}
		}
	}
	if len(o.Taken) == 0 {
		return nil, "", fmt.Errorf("%w: the stream has %s; offer to receive that", sdp.ErrNoCodec, has)
	}
	if err := o.Settle(); err != nil {
		return nil, "", err
	}
	for _, section := range o.Taken {
		if err := rtc.Register(media, *section.Codec); err != nil {
			return nil, "", sdp.Error(err.Error())
		}
	}
	sess, err := s.newSession(ctx, kindWHEP, media, o, entry, remote)
	if err != nil {
		return nil, "", err
	}
	sess.stream = st
	for _, t := range left {
		sess.notTaken = append(sess.notTaken, fmt.Sprintf("track %s (%s): not asked for", t.ID, sdp.Describe(rtc.CapabilityOf(t.Codec))))
	}
	for _, section := range o.Taken { // in order, so that pion puts each into its section
		out := sess.pc.NewTrack(carries[section], "weir")
		out.PayloadType = section.Codec.PT
		out.Begun = sess.firstOf(out.Kind())
		sess.outs = append(sess.outs, out)
	}
	answer, err := sess.answer(ctx, o)
	if err == nil {
		var ok bool
		if sess.release, ok = st.Use(sess, true); !ok {
			err = errEnded
		}
	}
	if err != nil {
		sess.discard()
		return nil, "", err
	}
	return sess, o.AnswerText(answer), nil
}

// firstOf is what tells how long after the POST the first packet of a kind was
// sent.
func (s *session) firstOf(kind webrtc.RTPCodecType) func(time.Time) {
	m := FirstVideo
	if kind == webrtc.RTPCodecTypeAudio {
		m = FirstAudio
	}
	return func(at time.Time) {
		s.first.sent(m, at)
		s.sfu.measured(m, at.Sub(s.asked))
	}
}

// restart serves an ICE restart (RFC 9725, section 4.3.3): the client comes
// with new credentials and gets ours. Called with patch held.
func (s *session) restart(ctx context.Context, f *sdp.Fragment) (string, error) {
	offer := s.offer.Restarted(f.Ufrag, f.Pwd)
	answer, err := s.answer(ctx, offer)
	if err != nil {
		return "", err
	}
	s.offer, s.etag = offer, newETag()
	s.candidates = nil
	return sdp.RestartFragment(answer), nil
}

// addCandidates gives the client's candidates to its ICE agent, as many as one
// session may have. Those over the bound, and those that cannot be used, are no
// error: our side learns the client's address from its checks. Called with
// patch held.
func (s *session) addCandidates(f *sdp.Fragment) {
	unused := maps.Clone(f.Skipped)
	for _, c := range f.Candidates {
		switch {
		case f.Ufrag != "" && f.Ufrag != s.offer.Ufrag:
			unused["of another transport"]++
		case slices.Contains(s.candidates, c) || slices.Contains(s.offer.Candidates, c):
		case len(s.candidates)+len(s.offer.Candidates) >= sdp.MaxCandidates:
			unused[sdp.OverBound]++
		default:
			s.candidates = append(s.candidates, c)
			if err := s.pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: "candidate:" + c.String()}); err != nil {
				unused["malformed"]++
				s.sfu.log.Debug("candidate not used", "session", s.id, "err", err)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for why, n := range unused {
		s.unused[why] += n
	}
}

// SessionStatus is a session as the admin API shows it.
type SessionStatus struct {
	ID        string      `json:"id"`
	Kind      sessionKind `json:"kind"`
	Stream    string      `json:"stream"`
	Remote    string      `json:"remote"`
	From      peer.ID     `json:"redirected_from,omitempty"` // the node that sent the client here
	Since     time.Time   `json:"since"`
	Subject   string      `json:"subject,omitempty"`     // whose right it is, as its token says
	Right     *time.Time  `json:"right_until,omitempty"` // when that ends; null: never, or nobody asks
	State     string      `json:"state"`
	Bitrate   int64       `json:"bitrate"` // bit/s of RTP over the last seconds
	RTT       float64     `json:"rtt_ms"`  // by a viewer's last report; 0: unknown
	Packets   int64       `json:"packets"`
	Bytes     int64       `json:"bytes"`
	Lost      int64       `json:"lost"`
	Loss      float64     `json:"loss"` // share of packets lost over the last seconds, 0…1
	Keyframes int64       `json:"keyframes"`
	// NotTaken are the sections and tracks that there is no media for, and why.
	NotTaken []string `json:"not_taken,omitempty"`
	// CandidatesUnused counts ICE candidates by why they are not used.
	CandidatesUnused map[string]int `json:"candidates_unused,omitempty"`
	// Of a publisher: its sections, and the packets that came and were not
	// forwarded, by reason.
	Sections     []sdp.SectionStatus `json:"sections,omitempty"`
	NotForwarded map[string]int64    `json:"not_forwarded,omitempty"`
}

func (s *session) candidatesUnused() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.unused)
}

// traffic is what went over a session, in or out.
type traffic struct{ packets, bytes, lost, keyframes int64 }

// traffic sums the session's up so far.
func (s *session) traffic() traffic {
	var t traffic
	for _, o := range s.outs {
		sent := o.Sent()
		t.packets += sent.Packets
		t.bytes += sent.Bytes
		t.lost += sent.Lost
	}
	if s.in != nil {
		came := s.in.Came()
		t.packets += came.Packets
		t.bytes += came.Bytes
		t.keyframes += came.Keyframes
		t.lost += came.Lost
	}
	return t
}

// paceOver is the time over which bitrate and loss are told.
const paceOver = 2 * time.Second

// A pace is how fast a session's traffic has been of late. The zero value is
// ready.
type pace struct {
	mu      sync.Mutex
	at      time.Time
	last    traffic
	bitrate int64
	loss    float64
}

// sample takes in what the session has carried up to now.
func (p *pace) sample(now time.Time, t traffic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	span := now.Sub(p.at)
	if span < paceOver {
		return
	}
	if !p.at.IsZero() {
		p.bitrate = int64(float64(8*(t.bytes-p.last.bytes)) / span.Seconds())
		lost, came := max(0, t.lost-p.last.lost), t.packets-p.last.packets
		p.loss = 0
		if lost+came > 0 {
			p.loss = float64(lost) / float64(lost+came)
		}
	}
	p.at, p.last = now, t
}

func (p *pace) of() (bitrate int64, loss float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bitrate, p.loss
}

// all are the sessions there are now, in no order.
func (s *SFU) all() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.sessions))
}

// Sessions lists the WHIP and WHEP clients, oldest first.
func (s *SFU) Sessions() []SessionStatus {
	list := []SessionStatus{}
	for _, sess := range s.all() {
		t := sess.traffic()
		st := SessionStatus{
			ID: sess.id, Kind: sess.kind, Stream: sess.stream.Name, Remote: sess.remote, From: sess.from, Since: sess.began,
			State: sess.pc.ConnectionState().String(), Packets: t.packets, Bytes: t.bytes, Lost: t.lost, Keyframes: t.keyframes,
			NotTaken: sess.notTaken, CandidatesUnused: sess.candidatesUnused(),
		}
		st.Bitrate, st.Loss = sess.pace.of()
		if g := sess.grant; g != nil {
			st.Subject = capacity.Printable(g.Subject, 128)
			if !g.Expires.IsZero() {
				st.Right = &g.Expires
			}
		}
		for _, o := range sess.outs {
			st.RTT = max(st.RTT, milliseconds(o.Sent().RTT))
		}
		if sess.in != nil {
			st.Sections, st.NotForwarded = sess.in.Status(time.Now()), sess.in.NotForwarded()
		}
		list = append(list, st)
	}
	slices.SortFunc(list, func(a, b SessionStatus) int { return a.Since.Compare(b.Since) })
	return list
}

// Lost is how many packets sessions under way have lost, by role: those of
// publishers on their way here, those of viewers as they report.
func (s *SFU) Lost() map[string]int64 {
	lost := map[string]int64{}
	for _, sess := range s.all() {
		lost[sess.kind.role()] += max(0, sess.traffic().lost)
	}
	return lost
}

// EndSession ends one session by order, and reports whether there was one.
func (s *SFU) EndSession(id, why string) bool {
	s.mu.Lock()
	sess := s.sessions[id]
	s.mu.Unlock()
	if sess == nil {
		return false
	}
	sess.end(why)
	<-sess.done
	return true
}

// EndStream ends the stream of that name, which must be published here, with
// its publisher's session. Viewers' end with it.
func (s *SFU) EndStream(name, why string) bool {
	for _, sess := range s.all() {
		if sess.kind == kindWHIP && sess.stream.Name == name {
			return s.EndSession(sess.id, why)
		}
	}
	return false
}

// tombstones remember the sessions that ended last, so that a DELETE that
// comes after can be told apart from one of a session that never was.
type tombstones struct {
	ids  map[string]bool // whether it was deleted by its client
	ring []string
	next int
}

const maxTombstones = 4096

// add notes that a session has ended, or will.
func (t *tombstones) add(id string) {
	if _, known := t.ids[id]; known {
		return
	}
	if t.ids == nil {
		t.ids = map[string]bool{}
	}
	if len(t.ring) < maxTombstones {
		t.ring = append(t.ring, id)
	} else {
		delete(t.ids, t.ring[t.next])
		t.ring[t.next] = id
		t.next = (t.next + 1) % maxTombstones
	}
	t.ids[id] = false
}

// deleted notes that the client itself has ended the session.
func (t *tombstones) deleted(id string) {
	t.add(id)
	t.ids[id] = true
}
