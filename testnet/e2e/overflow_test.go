package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/signed"
	"weir/sfu/client"
)

// fill uses up the two sessions of a node with a limit of two.
func fill(t *testing.T, full node, stream string) *client.Viewer {
	t.Helper()
	publish(t, full.whip(stream))
	v := view(t, full.whep(stream))
	if !full.serves(v.NodeURL()) {
		t.Fatalf("%s was full before it should be", full.Name)
	}
	return v
}

func TestFullNodeRedirects(t *testing.T) {
	w := up(t, 4, only(1, "--session-limit", "2"))
	full := w.n(1)
	w.witness(w.n(2), w.n(2), w.n(3), w.n(4))
	stays := fill(t, full, "demo")
	events := full.follow(t)

	v := view(t, full.whep("demo"))
	if hops := v.Stats().Hops; len(hops) != 2 || full.serves(v.NodeURL()) {
		t.Fatalf("went by %v, want one redirect", hops)
	}
	flows(t, v)
	flows(t, stays)
	var helper node
	for i := 2; i <= 4; i++ {
		if w.n(i).serves(v.NodeURL()) {
			helper = w.n(i)
		}
	}
	told := events.of("redirect", "demo")
	if len(told) != 1 || told[0].Peer != helper.PeerID {
		t.Errorf("told of %+v, want one redirect to %s", told, helper.PeerID)
	} else {
		says(t, told[0].Detail, "sessions", "score", "reserved in")
	}
	d := full.decisions(t)
	last := d[len(d)-1]
	if last.Chosen != helper.PeerID || len(last.Verdicts) < 3 || len(last.Reservations) == 0 {
		t.Errorf("the decision is not explained: %+v", last)
	}
	// The helper pulls from the full node itself, which had reserved that.
	pulled := false
	for _, l := range helper.links(t) {
		pulled = pulled || l.Peer == full.PeerID && strings.Contains(strings.Join(l.PullsIn, " "), "demo")
	}
	if !pulled {
		t.Errorf("%s does not pull demo from %s: %+v", helper.Name, full.Name, helper.links(t))
	}

	// A publisher likewise.
	p := publish(t, full.whip("second"))
	if full.serves(p.NodeURL()) || len(p.Stats().Hops) != 2 {
		t.Errorf("the publisher went by %v, want one redirect", p.Stats().Hops)
	}
	w.n(2).finds(t, "second")
	flows(t, view(t, w.n(2).whep("second")))
	if s := full.status(t); s.Publishers != 1 || s.Viewers != 1 {
		t.Errorf("the full node has %d publishers and %d viewers, want one of each", s.Publishers, s.Viewers)
	}
}

// redirected has the full node redirect a viewer's request, and returns the
// target without following.
func redirected(t *testing.T, full node, stream string) *url.URL {
	t.Helper()
	resp, text := full.post(t, full.whep(stream), viewerOffer(t))
	if resp.StatusCode != http.StatusTemporaryRedirect {
		t.Fatalf("%s: %s", resp.Status, text)
	}
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || !to.IsAbs() || to.Path != "/whep/"+stream || to.Query().Get("ticket") == "" {
		t.Fatalf("Location %q: want an absolute URL with a ticket", resp.Header.Get("Location"))
	}
	if full.serves(to.String()) {
		t.Fatalf("redirected to the full node itself: %s", to)
	}
	return to
}

func TestTickets(t *testing.T) {
	t.Parallel()
	w := up(t, 3, only(1, "--session-limit", "2"))
	full := w.n(1)
	w.witness(w.n(2), w.n(2), w.n(3))
	fill(t, full, "demo")
	expiring := redirected(t, full, "demo") // used at the end

	helperOf := func(u *url.URL) node {
		for i := 2; i <= 3; i++ {
			if w.n(i).serves(u.String()) {
				return w.n(i)
			}
		}
		t.Fatalf("nobody serves %s", u)
		return node{}
	}
	refused := func(what string, u *url.URL, parts ...string) {
		t.Helper()
		resp, text := full.post(t, u.String(), viewerOffer(t))
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s, want 403", what, resp.Status)
		}
		says(t, text, append(parts, "ask the server that sent you again")...)
	}
	with := func(u *url.URL, change func(u *url.URL)) *url.URL {
		changed := *u
		change(&changed)
		return &changed
	}
	setTicket := func(s string) func(*url.URL) {
		return func(u *url.URL) { u.RawQuery = url.Values{"ticket": {s}}.Encode() }
	}

	u := redirected(t, full, "demo")
	helper, ticket := helperOf(u), u.Query().Get("ticket")
	other := w.n(2)
	if helper.Name == "n2" {
		other = w.n(3)
	}
	middle := len(ticket) / 2
	flipped := ticket[:middle] + string(ticket[middle]^1) + ticket[middle+1:]
	refused("a forged ticket", with(u, setTicket(flipped)))
	refused("no ticket at all", with(u, setTicket("x")))
	refused("a huge ticket", with(u, setTicket(strings.Repeat("A", 4000))))
	refused("a ticket for another stream", with(u, func(u *url.URL) { u.Path = "/whep/other" }), `"demo"`)
	refused("a viewer's ticket to publish", with(u, func(u *url.URL) { u.Path = "/whip/demo" }), "view")
	refused("another node's ticket", with(u, func(u *url.URL) { u.Host = strings.TrimPrefix(other.HTTP, "http://") }))

	// The ticket is still valid after all that.
	resp, text := full.post(t, u.String(), viewerOffer(t))
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("the good ticket: %s: %s", resp.Status, text)
	}
	refused("a ticket used again", u, "used")
	if resp, _ := send(t, http.MethodDelete, resp.Header.Get("Location"), "", "", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("DELETE of the session: %s", resp.Status)
	}
	refused("a ticket whose session has ended", u, "used")

	// A ticket expires with its lease.
	opened, err := signed.OpenTicket(expiring.Query().Get("ticket"), helperOf(expiring).PeerID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if opened.From != full.PeerID || opened.Source != full.PeerID || opened.Stream != "demo" {
		t.Errorf("the ticket says %+v", opened)
	}
	<-time.After(time.Until(opened.Expires) + 50*time.Millisecond)
	refused("a ticket that has run out", expiring, "expired")
	eventually(t, "no lease is left", func() bool { return w.n(2).status(t).Leases+w.n(3).status(t).Leases == 0 })
}

func TestNobodyHasRoom(t *testing.T) {
	w := up(t, 2, func(i int) []string { return []string{"--session-limit", "2"} })
	a, b := w.n(1), w.n(2)
	viewer := fill(t, a, "one")
	fill(t, b, "two")

	for what, ask := range map[string]func() error{
		"viewer":    func() error { _, err := tryView(t, a.whep("one")); return err },
		"publisher": func() error { _, err := tryPublish(t, a.whip("three")); return err },
	} {
		r := refusal(t, ask())
		if r.Status != http.StatusServiceUnavailable || r.RetryAfter < time.Second {
			t.Errorf("%s: %d, retry after %v; want 503 and when", what, r.Status, r.RetryAfter)
		}
		says(t, r.Body, "this node is full", "2 of 2", "so is the network")
	}
	says(t, a.get(t, "/metrics"), "weir_stress_ratio 1\n", "weir_sessions{role=\"viewer\"} 1\n")

	// Free room is used at once.
	if err := viewer.Close(); err != nil {
		t.Fatal(err)
	}
	flows(t, view(t, a.whep("one")))
}

func TestOverflowRelayAndRefuse(t *testing.T) {
	w := up(t, 3, func(i int) []string {
		switch i {
		case 1:
			return []string{"--session-limit", "2", "--overflow", "relay"}
		case 2:
			return []string{"--session-limit", "2", "--overflow", "refuse"}
		}
		return nil
	})
	relays, refuses, roomy := w.n(1), w.n(2), w.n(3)
	w.witness(roomy, roomy)
	fill(t, relays, "one")
	fill(t, refuses, "two")

	// A relayed viewer sees no redirect, and is served by the helper all the same.
	v := view(t, relays.whep("one"))
	if hops := v.Stats().Hops; len(hops) != 1 {
		t.Errorf("went by %v, want no redirect", hops)
	}
	flows(t, v)
	if s := relays.status(t); s.Viewers != 1 {
		t.Errorf("%d viewers at the full node, want the one that it had", s.Viewers)
	}
	served := func() int {
		n := 0
		for _, s := range roomy.sessions(t) {
			if s.Stream == "one" {
				n++
			}
		}
		return n
	}
	if served() != 1 {
		t.Errorf("the helper's sessions: %+v", roomy.sessions(t))
	}
	// Its DELETE goes to the helper, since Location is absolute.
	if err := v.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	eventually(t, "the helper's session has ended", func() bool { return served() == 0 })
	p := publish(t, relays.whip("moved"))
	if len(p.Stats().Hops) != 1 {
		t.Errorf("the publisher went by %v, want no redirect", p.Stats().Hops)
	}
	eventually(t, "the helper has the publisher", func() bool {
		ids := roomy.carriers(t, "moved")
		return len(ids) == 1 && ids[0] == roomy.PeerID
	})

	_, err := tryView(t, refuses.whep("two"))
	r := refusal(t, err)
	if r.Status != http.StatusServiceUnavailable || r.RetryAfter == 0 {
		t.Errorf("--overflow refuse: %d, retry after %v; want 503 and when", r.Status, r.RetryAfter)
	}
	says(t, r.Body, "sessions", "2 of 2")
	if d := refuses.decisions(t); len(d) > 0 {
		t.Errorf("it searched all the same: %+v", d)
	}
}

// Hung nodes do not delay a redirect, from the first byte of the request to the
// answer: a search that waited for them would take 10 s.
func TestHungNodesDelayNobodyTimed(t *testing.T) {
	w := up(t, 14, only(1, "--session-limit", "2"))
	full := w.n(1)
	var steady, holders []node
	isHolder := map[peer.ID]bool{}
	for _, p := range ask[[]struct {
		ID     peer.ID `json:"peer_id"`
		Holder bool    `json:"holder"`
	}](t, full, "/peers") {
		isHolder[p.ID] = p.Holder
	}
	for i := 2; i <= 14; i++ {
		if n := w.n(i); isHolder[n.PeerID] {
			holders = append(holders, n)
		} else {
			steady = append(steady, n)
		}
	}
	if len(holders) < 4 || len(steady) < 2 {
		t.Fatalf("%d holders and %d others known to %s: want at least 4 and 2", len(holders), len(steady), full.Name)
	}
	w.witness(steady[0], steady[0], steady[1])
	fill(t, full, "demo")
	redirected(t, full, "demo") // all nodes answer at this point

	hung := holders[:len(holders)/2]
	for _, n := range hung {
		if err := w.Pause(n.Name); err != nil {
			t.Fatal(err)
		}
	}
	var took []time.Duration
	for i := range 5 {
		began := time.Now()
		to := redirected(t, full, "demo")
		took = append(took, time.Since(began))
		for _, n := range hung {
			if n.serves(to.String()) {
				t.Errorf("redirect %d went to %s, which is hung", i+1, n.Name)
			}
		}
	}
	inTime(t, "redirects with half of the holders hung", time.Second, took)
	for _, n := range hung {
		if err := w.Resume(n.Name); err != nil {
			t.Fatal(err)
		}
	}
	w.see(t)
}
