package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/capacity"
	"weir/capacity/event"
	"weir/sfu"
	"weir/sfu/client"
)

func TestViewerElsewhereIsServedOverOneLink(t *testing.T) {
	w := up(t, 3, func(int) []string { return []string{"--linger", "100ms"} })
	a, b := w.n(1), w.n(2)
	w.witness(w.n(3), w.n(3))
	forth := publish(t, a.whip("forth"))
	b.finds(t, "forth")
	v := view(t, b.whep("forth"))
	if !b.serves(v.NodeURL()) {
		t.Errorf("served at %s, want %s itself", v.NodeURL(), b.Name)
	}
	flows(t, v)
	if s := v.Stats(); s.Lost > 0 || s.Latency == nil || time.Duration(s.Latency.P50) > maxGap {
		t.Errorf("over the link %d packets were lost, latency %+v", s.Lost, s.Latency)
	}

	// The opposite direction uses the same link.
	publish(t, b.whip("back"))
	a.finds(t, "back")
	view(t, a.whep("back"))
	for _, end := range []struct {
		at, other node
		in, out   string
		dialer    bool
	}{{b, a, "forth", "back", true}, {a, b, "back", "forth", false}} {
		links := end.at.links(t)
		if len(links) != 1 {
			t.Fatalf("%s has %d links, want one: %+v", end.at.Name, len(links), links)
		}
		l := links[0]
		if l.Peer != end.other.PeerID || strings.Join(l.PullsIn, " ") != end.in || strings.Join(l.PullsOut, " ") != end.out ||
			l.Dialer != end.dialer || l.State != "connected" || l.PacketsIn == 0 || l.PacketsOut == 0 {
			t.Errorf("the link of %s is %+v", end.at.Name, l)
		}
	}

	// The publisher ends: so do its viewers at other nodes, and nothing is left.
	forth.stop()
	eventually(t, "the viewer's connection is closed", func() bool { return isClosed(v.Done()) })
	eventually(t, "the stream is found no more", func() bool { return len(b.carriers(t, "forth")) == 0 })
	if _, err := tryView(t, b.whep("forth")); refusal(t, err).Status != http.StatusConflict {
		t.Errorf("a viewer that comes after: %v", err)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// If the origin accepts no more pulls, the tree grows deeper; a viewer three
// links from the publisher still has audio and video in sync.
func TestTreeGrowsByItself(t *testing.T) {
	w := up(t, 4, func(int) []string { return []string{"--fanout", "1"} })
	w.witness(w.n(4), w.n(4))
	publish(t, w.n(1).whip("demo"))
	var last *client.Viewer
	for i := 2; i <= 4; i++ {
		n := w.n(i)
		eventually(t, "those above are found", func() bool { return len(n.carriers(t, "demo")) == i-1 })
		last = view(t, n.whep("demo"))
		// Nodes whose pull was refused may still have a link.
		links := n.links(t)
		above := slices.IndexFunc(links, func(l sfu.LinkStatus) bool { return slices.Contains(l.PullsIn, "demo") })
		if above < 0 || links[above].Peer != w.n(i-1).PeerID {
			t.Errorf("%s pulls over %+v, want from %s", n.Name, links, w.n(i-1).Name)
		}
	}
	eventually(t, "the records tell the depth of each", func() bool {
		for _, s := range ask[struct {
			Streams []struct {
				Stream   string
				Carriers []struct{ Depth int }
			}
		}](t, w.n(1), "/streams").Streams {
			if s.Stream == "demo" && len(s.Carriers) == 4 && s.Carriers[0].Depth == 0 && s.Carriers[3].Depth == 3 {
				return true
			}
		}
		return false
	})
	eventually(t, "sender reports have come", func() bool { return last.Stats().Skew != nil })
	flows(t, last)
	if s := last.Stats(); s.Lost > 0 || s.Skew.Abs() > 100*time.Millisecond {
		t.Errorf("three links on: %d packets lost, video %v after audio", s.Lost, *s.Skew)
	}
	continuous(t, last)
}

// An unused link is closed, and opened again when it is needed.
func TestUnusedLinkIsLetGo(t *testing.T) {
	t.Parallel()
	w := up(t, 2, func(int) []string { return []string{"--linger", "100ms"} })
	a, b := w.n(1), w.n(2)
	w.witness(a, a)
	publish(t, a.whip("demo"))
	b.finds(t, "demo")
	v := view(t, b.whep("demo"))
	opened := b.links(t)[0].Opened
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both ends have let the link go", func() bool { return len(a.links(t))+len(b.links(t)) == 0 })
	if s := a.status(t); s.Leases != 0 || s.Streams != 2 {
		t.Errorf("the origin has %d leases and %d streams, want 0 and its 2", s.Leases, s.Streams)
	}
	flows(t, view(t, b.whep("demo")))
	if again := b.links(t); len(again) != 1 || !again[0].Opened.After(opened) {
		t.Errorf("the new viewer's link: %+v", again)
	}
}

func TestManyViewersAtOnceAreOnePull(t *testing.T) {
	const many = 60
	w := up(t, 3, nil)
	a, b := w.n(1), w.n(2)
	w.witness(a, a, w.n(3))
	publish(t, a.whip("demo"))
	b.finds(t, "demo")
	events := b.follow(t)

	viewers := make([]*client.Viewer, many)
	var work errgroup.Group
	for i := range viewers {
		work.Go(func() (err error) {
			viewers[i], err = tryView(t, b.whep("demo"))
			return err
		})
	}
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all sessions are told of", func() bool { return len(events.of("session.opened", "demo")) == many })
	for _, kind := range []event.Kind{"pull.started", "pull.ready"} {
		if n := len(events.of(kind, "demo")); n != 1 {
			t.Errorf("%d × %s, want one", n, kind)
		}
	}
	searches := 0
	for _, d := range b.decisions(t) {
		if d.Need.Purpose == capacity.Cascade && d.Need.Stream == "demo" {
			searches++
		}
	}
	if searches != 1 {
		t.Errorf("%s searched for a carrier %d times, want once", b.Name, searches)
	}
	if links := b.links(t); len(links) != 1 || strings.Join(links[0].PullsIn, " ") != "demo" {
		t.Errorf("links of %s: %+v", b.Name, links)
	}
	if out := a.links(t); len(out) != 2 { // the other one belongs to the witness
		t.Errorf("%s has %d links, want 2", a.Name, len(out))
	}
	flows(t, viewers...)
}

func TestStreamThatIsNotLive(t *testing.T) {
	w := up(t, 2, nil)
	a, b := w.n(1), w.n(2)
	w.witness(a, a, b)
	resp, text := a.post(t, a.whep("soon"), viewerOffer(t))
	if resp.StatusCode != http.StatusConflict || retryAfter(t, resp) < 1 {
		t.Errorf("%s, Retry-After %q; want 409 and when to ask again", resp.Status, resp.Header.Get("Retry-After"))
	}
	says(t, text, `"soon" is not live`, "try again")

	for _, bad := range []string{"soon", "-1s", "1h"} {
		resp, text := a.post(t, a.whep("soon")+"?wait="+bad, viewerOffer(t))
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("wait=%s: %s", bad, resp.Status)
		}
		says(t, text, bad, "such as 10s")
	}

	// A viewer that may wait gets the stream when it goes live, on another node
	// too.
	began := time.Now()
	viewed := make(chan error, 1)
	var v *client.Viewer
	go func() {
		var err error
		v, err = tryView(t, a.whep("soon")+"?wait=15s")
		viewed <- err
	}()
	eventually(t, "the request is waiting", func() bool {
		for _, d := range a.decisions(t) {
			if d.Need.Stream == "soon" && d.Time.After(began) {
				return true
			}
		}
		return false
	})
	publish(t, b.whip("soon"))
	if err := <-viewed; err != nil {
		t.Fatalf("it went live meanwhile, but: %v", err)
	}
	flows(t, v)

	// It gets an error if the stream does not go live in time.
	began = time.Now()
	resp, _ = a.post(t, a.whep("never")+"?wait=1s", viewerOffer(t))
	if took := time.Since(began); resp.StatusCode != http.StatusConflict || took < time.Second || took > patience {
		t.Errorf("wait=1s: %s after %v", resp.Status, took)
	}
}

// Waiting viewers do not take the room of others, at a node with room and at
// full ones, and all of them are served when the stream comes.
func TestManyWait(t *testing.T) {
	const many = 140
	w := up(t, 3, func(i int) []string {
		switch i {
		case 2:
			return []string{"--session-limit", "1"}
		case 3:
			return []string{"--session-limit", "1", "--overflow", "relay"}
		}
		return []string{"--cpu-limit", "0", "--session-limit", "500"}
	})
	a, redirects, relays := w.n(1), w.n(2), w.n(3)
	w.see(t)
	publish(t, redirects.whip("own2"))
	publish(t, relays.whip("own3"))
	offer := viewerOffer(t)
	type answer struct {
		at   string
		resp *http.Response
		text string
	}
	answers := make(chan answer, many+2)
	ask := func(n node) {
		go func() {
			resp, text := n.post(t, n.whep("soon")+"?wait=30s", offer)
			answers <- answer{n.Name, resp, text}
		}()
	}
	for range many {
		ask(a)
	}
	ask(redirects)
	ask(relays)
	eventually(t, "all wait", func() bool {
		s := a.status(t)
		return s.Requests.Waiting == many && s.Requests.SettingUp == 0 && redirects.status(t).Requests.Waiting == 1 && relays.status(t).Requests.Waiting == 1
	})
	began := time.Now()
	publish(t, a.whip("soon"))
	t.Logf("the publisher was accepted and connected after %v", time.Since(began))
	served := 0
	for range many + 2 {
		got := <-answers
		switch {
		case got.at == redirects.Name:
			to := got.resp.Header.Get("Location")
			u, err := url.Parse(to)
			if err != nil || got.resp.StatusCode != http.StatusTemporaryRedirect || u.Query().Get("ticket") == "" {
				t.Errorf("the full node answers %s, Location %q", got.resp.Status, to)
				continue
			}
			if left, err := time.ParseDuration(u.Query().Get("wait")); err != nil || left <= 0 || left >= 30*time.Second {
				t.Errorf("the redirect is to %s: want what is left of the wait", u.RawQuery)
			}
		case got.resp.StatusCode == http.StatusCreated:
			served++
		default:
			t.Errorf("%s: %s: %s", got.at, got.resp.Status, got.text)
		}
	}
	t.Logf("all were answered after %v", time.Since(began))
	if served != many+1 {
		t.Errorf("%d of %d served", served, many+1)
	}
}

func TestNameIsTakenOnAnotherNode(t *testing.T) {
	w := up(t, 2, nil)
	a, b := w.n(1), w.n(2)
	w.witness(a, a, b)
	first := publish(t, a.whip("demo"))
	b.finds(t, "demo")

	_, err := tryPublish(t, b.whip("demo"))
	r := refusal(t, err)
	if r.Status != http.StatusConflict || r.RetryAfter == 0 {
		t.Errorf("elsewhere: %d, retry after %v; want 409 and when", r.Status, r.RetryAfter)
	}
	says(t, r.Body, `"demo"`, a.PeerID.String(), "choose another name")

	_, err = tryPublish(t, a.whip("demo"))
	r = refusal(t, err)
	if r.Status != http.StatusConflict {
		t.Errorf("here: %d, want 409", r.Status)
	}
	says(t, r.Body, `"demo"`, "here", "choose another name")

	// The name is free as soon as its publisher has ended.
	first.stop()
	publish(t, b.whip("demo"))
	flows(t, view(t, b.whep("demo")))
}

// Of publishers that claim one name at the same moment at different nodes,
// before any of them can know of the others, one stays, and is seen everywhere.
func TestNameIsTakenAtTheSameTime(t *testing.T) {
	t.Parallel()
	w := up(t, 3, nil)
	const names = 4
	var taking sync.WaitGroup
	var took atomic.Int64
	for i := range names {
		for k := 1; k <= 3; k++ {
			taking.Go(func() {
				_, err := tryPublish(t, w.n(k).whip(fmt.Sprint("same", i)))
				var refused *client.Refused
				if err == nil {
					took.Add(1)
				} else if !errors.As(err, &refused) || refused.Status != http.StatusConflict {
					t.Errorf("neither taken nor refused for its name: %v", err)
				}
			})
		}
	}
	taking.Wait()
	t.Logf("%d of %d publishers of %d names were let in at first", took.Load(), 3*names, names)
	eventually(t, "one publisher of each name is left", func() bool {
		sum := 0
		for k := 1; k <= 3; k++ {
			sum += w.n(k).status(t).Publishers
		}
		return sum == names
	})
	for i := range names {
		w.n(1).finds(t, fmt.Sprint("same", i))
		flows(t, view(t, w.n(1).whep(fmt.Sprint("same", i))))
	}
}
