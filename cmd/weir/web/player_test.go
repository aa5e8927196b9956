package web

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"weir/sfu/problem"
	"weir/testnet/browser"
)

// foreignPage serves a page of another origin, with its own policy if one is
// given, and returns its URL.
func foreignPage(t *testing.T, policy, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			w.WriteHeader(http.StatusNoContent) // the icon
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if policy != "" {
			w.Header().Set("Content-Security-Policy", policy)
		}
		fmt.Fprintf(w, "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>A page of somebody else's</title>%s</html>", body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// listen has a page note the events of its player as they come.
const listen = `document.addEventListener('readystatechange', () => {
	if (window.events) return;
	window.events = []; // before any module runs
	for (const player of document.querySelectorAll('weir-player')) {
		for (const type of ['playing', 'stalled', 'moved', 'ended', 'error']) {
			player.addEventListener(type, ({detail}) => window.events.push({type, ...detail}));
		}
	}
	if (document.querySelector('#player')) window.weir = document.querySelector('#player');
})`

// spyOnConnections makes the page's connections available to the test.
const spyOnConnections = `{
	const Real = RTCPeerConnection;
	window.connections = [];
	window.RTCPeerConnection = class extends Real {
		constructor(...args) { super(...args); window.connections.push(this); }
	};
}`

// openForeign opens a foreign page with the module of node and the given markup.
func openForeign(t *testing.T, node, policy, markup string) *browser.Tab {
	t.Helper()
	tb := newTab(t, 1000, 800)
	tb.Inject(listen)
	tb.Inject(spyOnConnections)
	tb.Go(foreignPage(t, policy, fmt.Sprintf(`<script type="module" src="%s/weir-player.js"></script>%s`, node, markup)))
	return tb
}

// said is the text of the player's overlay.
func said(tb *browser.Tab) string {
	return browser.Eval[string](tb, `[...`+inPlayer+`.querySelector('#error').children].map(e => e.textContent).join('|')`)
}

// A page whose policy allows the node and nothing inline has several players.
// Each ends its session when it is removed or gets another stream.
func TestPlayersInAForeignPage(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	publishAt(t, n.URL, "one").Until("window.weir.state === 'live'")
	publishAt(t, n.URL, "two").Until("window.weir.state === 'live'")

	policy := fmt.Sprintf("default-src 'none'; script-src %s; connect-src %s; require-trusted-types-for 'script'; trusted-types 'none'", n.URL, n.URL)
	tb := openForeign(t, n.URL, policy, fmt.Sprintf(
		`<h1>Two cameras</h1><main><weir-player id="player" src="%[1]s/whep/one" muted></weir-player><weir-player id="other" src="%[1]s/whep/two" muted></weir-player></main>`, n.URL))
	const both = "document.querySelector('#player').playing && document.querySelector('#other').playing"
	tb.Until("window.weir?.state && " + both)
	tb.Until(inPlayer + ".querySelector('.latency').textContent.startsWith('Latency ') && window.weir.latency > 0")
	tb.Until("window.weir.matches(':state(playing)')")
	if got := browser.Eval[string](tb, inPlayer+".querySelector('.frame').ariaLabel || "+inPlayer+".querySelector('.frame').getAttribute('aria-label')"); got != "The stream one" {
		t.Errorf("the player is called %q", got)
	}
	tb.NoOverflow()
	tb.ShootAll("foreign")
	for _, bad := range browser.Eval[[]string](tb, nameless) {
		t.Errorf("no name: %s", bad)
	}
	// The controls are hidden during playback, and come back with the pointer.
	tb.Until("'idle' in " + inPlayer + ".querySelector('.frame').dataset")
	browser.Eval[any](tb, inPlayer+".querySelector('.frame').dispatchEvent(new PointerEvent('pointermove')), 1")
	tb.Until("!('idle' in " + inPlayer + ".querySelector('.frame').dataset)")

	// A page that moves the player within the document keeps the session.
	session := "document.querySelector('#player').connection.sessionURL"
	first := browser.Eval[string](tb, session)
	browser.Eval[any](tb, "document.querySelector('main').append(document.querySelector('#player')), 1")
	browser.Eval[any](tb, "new Promise(done => setTimeout(done, 50))")
	if got := browser.Eval[string](tb, session); got != first {
		t.Errorf("after a move the session is %q, want %q as before", got, first)
	}

	// Keys are for the player that has the focus.
	browser.Eval[any](tb, "document.querySelector('#player').focus(), 1")
	press := func(key string) {
		browser.Eval[any](tb, fmt.Sprintf("%s.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: %q, bubbles: true, composed: true, cancelable: true})), 1", inPlayer, key))
	}
	press("M")
	tb.Until("!document.querySelector('#player').muted && document.querySelector('#other').muted")
	press(" ")
	tb.Until("document.querySelector('#player').state === 'stopped' && " + inPlayer + ".querySelector('#again').textContent === 'Play again'")
	waitDeleted(t, n, first)
	tb.Shoot("foreign-stopped")
	press(" ")
	tb.Until(both)

	// Another stream is another session.
	second := browser.Eval[string](tb, session)
	browser.Eval[any](tb, fmt.Sprintf("document.querySelector('#player').src = '%s/whep/two', 1", n.URL))
	waitDeleted(t, n, second)
	tb.Until(both)

	// A removed player releases everything, however often it was inserted.
	third := browser.Eval[string](tb, session)
	browser.Eval[any](tb, `(async () => {
		const player = document.querySelector('#player'), main = document.querySelector('main');
		for (let i = 0; i < 8; i++) {
			player.remove();
			await new Promise(done => setTimeout(done, 20));
			main.append(player);
			await new Promise(done => setTimeout(done, 20));
		}
		player.remove();
		document.querySelector('#other').remove();
	})()`)
	waitDeleted(t, n, third)
	tb.Until("window.connections.every(pc => pc.connectionState === 'closed')")
	waitFor(t, "no session of a viewer", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		for id := range n.sessions {
			if strings.HasPrefix(id, "out") {
				return false
			}
		}
		return true
	})
}

// A browser that does not allow sound at the start shows the picture, and a
// button.
func TestPlayerStartsMutedWhereItMust(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	publishAt(t, n.URL, "demo").Until("window.weir.state === 'live'")
	tb := openForeign(t, n.URL, "", fmt.Sprintf(`<weir-player id="player" src="%s/whep/demo"></weir-player>`, n.URL))
	tb.Until("window.weir?.playing && window.weir.muted")
	tb.Until(inPlayer + ".querySelector('#unmute').textContent === 'Unmute' && " + inPlayer + ".querySelector('.frame').dataset.blocked === 'sound'")
	tb.ShootAll("foreign-muted")
	tb.ClickIn("#player", "#unmute")
	tb.Until("!window.weir.muted && !window.weir.video.paused && !('blocked' in " + inPlayer + ".querySelector('.frame').dataset)")
	browser.Eval[any](tb, `(() => {
		const volume = `+inPlayer+`.querySelector('#volume');
		volume.value = 40;
		volume.dispatchEvent(new Event('input'));
	})()`)
	tb.Until("window.weir.volume === 0.4 && " + inPlayer + ".querySelector('#volume').getAttribute('aria-valuetext') === '40 %'")
	tb.ClickIn("#player", "#pip")
	tb.Until("document.pictureInPictureElement === window.weir && " + inPlayer + ".querySelector('#pip').ariaPressed === 'true'")
	tb.ClickIn("#player", "#pip")
	tb.Until("!document.pictureInPictureElement")
}

// If the page requests it, nothing is opened before a click.
func TestPlayerWaitsForAClick(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	publishAt(t, n.URL, "demo").Until("window.weir.state === 'live'")
	n.mu.Lock()
	before := n.posts
	n.mu.Unlock()
	tb := openForeign(t, n.URL, "", fmt.Sprintf(`<weir-player id="player" autoplay="off" src="%s/whep/demo"></weir-player>`, n.URL))
	tb.Until("window.weir?.state === 'stopped' && " + inPlayer + ".querySelector('#again').textContent === 'Play'")
	n.mu.Lock()
	posts := n.posts - before
	n.mu.Unlock()
	if posts != 0 {
		t.Errorf("%d requests before the click", posts)
	}
	tb.Shoot("foreign-click")
	tb.ClickIn("#player", "#again")
	tb.Until("window.weir.playing && !window.weir.muted") // the click allows sound
}

// The token goes to the node in the Authorization header and nowhere else, and a
// new one is tried at once.
func TestPlayerSendsItsToken(t *testing.T) {
	n, helper := newFakeNode(t), newFakeNode(t)
	n.set(withURLs(n.URL, helper.URL))
	publishAt(t, helper.URL, "demo").Until("window.weir.state === 'live'")
	type request struct{ node, url, authorization string }
	var mu sync.Mutex
	var seen []request
	saw := func(node string) func(http.ResponseWriter, *http.Request) string {
		return func(_ http.ResponseWriter, r *http.Request) string {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, request{node, r.URL.String(), r.Header.Get("Authorization")})
			return r.Header.Get("Authorization")
		}
	}
	note := saw("node")
	n.setRefuse(func(w http.ResponseWriter, r *http.Request) {
		switch note(w, r) {
		case "":
			w.Header().Set("WWW-Authenticate", "Bearer")
			problem.New(problem.Unauthorized, "a token is needed to view demo").Write(w)
		case "Bearer old.token-1":
			problem.New(problem.Forbidden, "the token has expired").Write(w)
		default:
			http.Redirect(w, r, helper.URL+r.URL.Path+"?ticket=abc", http.StatusTemporaryRedirect)
		}
	})
	helper.setTap(func(r *http.Request) { saw("helper")(nil, r) })

	tb := openForeign(t, n.URL, "", fmt.Sprintf(`<weir-player id="player" muted src="%s/whep/demo"></weir-player>`, n.URL))
	tb.Expect("status of 40[13]")
	tb.Until("window.weir?.state === 'failed' && window.events.length === 1")
	if got := said(tb); got != "A token is needed|a token is needed to view demo" {
		t.Errorf("without a token the player says %q", got)
	}
	tb.Shoot("foreign-401")
	browser.Eval[any](tb, "window.weir.setAttribute('token', 'old.token-1'), 1")
	tb.Until("window.events.length === 2 && window.events[1].status === 403")
	if got := said(tb); got != "The token is for something else|the token has expired" {
		t.Errorf("with an old token the player says %q", got)
	}
	browser.Eval[any](tb, "window.weir.token = 'not a token', 1")
	tb.Until("window.events.length === 3 && window.events[2].status === 0")
	if got := said(tb); !strings.Contains(got, "characters that no bearer token has") {
		t.Errorf("of a token with blanks the player says %q", got)
	}
	browser.Eval[any](tb, "window.weir.token = 'good.token_2', 1")
	tb.Until("window.weir.playing")
	session := browser.Eval[string](tb, "window.weir.connection.sessionURL")
	// A token renewed in time interrupts nothing.
	browser.Eval[any](tb, "window.weir.token = 'good.token_3', 1")
	browser.Eval[any](tb, "new Promise(done => setTimeout(done, 50))")
	if got := browser.Eval[string](tb, "window.weir.connection.sessionURL"); got != session {
		t.Errorf("a new token made the session %q of %q", got, session)
	}
	// Removing the token ends playback.
	browser.Eval[any](tb, "window.weir.removeAttribute('token'), window.weir.token = null, 1")
	waitDeleted(t, helper, session)
	tb.Until("window.weir.state === 'failed'")

	mu.Lock()
	defer mu.Unlock()
	var helped bool
	for _, r := range seen {
		if strings.Contains(r.url, "token") || r.node == "helper" && r.authorization != "" {
			t.Errorf("the %s was sent %+v", r.node, r)
		}
		helped = helped || r.node == "helper"
	}
	if !helped {
		t.Error("the helper was sent nothing")
	}
}

// The player shows the reason if a stream does not play.
func TestPlayerSaysWhatIsWrong(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	stub := func(answer http.HandlerFunc) string {
		s := httptest.NewServer(answer)
		t.Cleanup(s.Close)
		return s.URL
	}
	page := stub(func(w http.ResponseWriter, r *http.Request) {
		cors(w)
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>Welcome</title>")
	})
	closed := stub(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusForbidden)
		}
	})
	gone := httptest.NewServer(nil)
	gone.Close()
	host := func(url string) string { return strings.TrimPrefix(url, "http://") }
	for _, c := range []struct{ name, attributes, policy, state, want, expect string }{
		{"no src", ``, "", "failed", "No stream|This player has no src", ""},
		{"a src that is none", `src="ftp://x/y"`, "", "failed", "Not a stream|“ftp://x/y” is no address of a stream", ""},
		{"a stream that is not live", `src="` + n.URL + `/whep/later"`, "", "waiting", "Not live yet|nobody publishes later now|Trying again in ", "status of 409"},
		{"a server that is no node", `src="` + page + `/live"`, "", "failed", "Not a stream|" + host(page) + " answered with a web page (200)", ""},
		{"nobody there", `src="` + gone.URL + `/whep/demo"`, "", "waiting", "Not connected|" + host(gone.URL) + " could not be reached.", "ERR_"},
		{"a node that lets no page of ours", `src="` + closed + `/whep/demo"`, "", "waiting", "Not connected|" + host(closed) + " is up, but this page may not read its answer", "CORS|ERR_|40[35]"},
		{"a page whose policy forbids it", `src="` + n.URL + `/whep/demo"`, "script-src " + n.URL + "; connect-src 'self'", "failed", "Not connected|The policy of this page does not let it talk to " + host(n.URL), "policy broken|Content Security Policy|Content-Security|violates"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tb := openForeign(t, n.URL, c.policy, `<weir-player id="player" `+c.attributes+`></weir-player>`)
			if c.expect != "" {
				tb.Expect(c.expect)
			}
			tb.Until(fmt.Sprintf("window.weir?.state === %q", c.state))
			if got := said(tb); !strings.HasPrefix(got, c.want) {
				t.Errorf("the player says %q, want %q", got, c.want)
			}
			if got := browser.Eval[int](tb, "window.events.filter(e => e.type === 'error').length"); c.state == "failed" && got != 1 {
				t.Errorf("%d error events, want one", got)
			}
			tb.Shoot("foreign-" + strings.ReplaceAll(c.name, " ", "-"))
		})
	}
}

// The embed page plays in a frame, reports to the framing page, and takes a
// token from it.
func TestEmbedPageInAFrame(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	publishAt(t, n.URL, "hall/one").Until("window.weir.state === 'live'")
	var mu sync.Mutex
	var authorization string
	n.setTap(func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		authorization = r.Header.Get("Authorization")
	})
	tb := newTab(t, 1000, 800)
	tb.Inject(`window.told = []; if (window === top) addEventListener('message', ({data, origin}) => window.told.push({...data, origin}))`)
	tb.Go(foreignPage(t, "", fmt.Sprintf(`<h1>A frame</h1><iframe id="frame" width="640" height="360" allow="autoplay; fullscreen; picture-in-picture" src="%s/embed/hall/one?muted=1"></iframe>`, n.URL)))
	tb.Until("window.told.some(m => m.weir === 'playing')")
	if got := browser.Eval[string](tb, "window.told[0].origin"); got != n.URL {
		t.Errorf("the message comes from %s", got)
	}
	tb.Shoot("embed-frame")
	// A session that the node ends is opened anew, with the newest token.
	browser.Eval[any](tb, fmt.Sprintf("document.querySelector('#frame').contentWindow.postMessage({weir: 'token', token: 'abc.def'}, %q), 1", n.URL))
	n.mu.Lock()
	for id, pc := range n.sessions {
		if strings.HasPrefix(id, "out") {
			_ = pc.Close()
		}
	}
	n.mu.Unlock()
	waitFor(t, "an offer with the token", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return authorization == "Bearer abc.def"
	})
	tb.Until("window.told.filter(m => m.weir === 'playing').length === 2 && window.told.some(m => m.weir === 'stalled')")

	alone := newTab(t, 390, 844)
	alone.Go(n.URL + "/embed/hall/one?muted=1")
	alone.Until("window.weir?.playing")
	alone.NoOverflow()
	alone.Shoot("embed-390")
	alone.Go(n.URL + "/embed/two%20words")
	alone.Until("document.querySelector('[role=alert]')?.textContent.includes('cannot be the name of a stream')")
}

// A player whose node has failed continues at a node that the page names, and
// the page gets an event.
func TestPlayerMovesToANamedNode(t *testing.T) {
	first, second := newFakeNode(t), newFakeNode(t)
	for _, n := range []*fakeNode{first, second} {
		n.set(withURLs(n.URL)) // the node itself names no other
		publisher := publishAt(t, n.URL, "demo")
		publisher.Expect("ERR_") // one of the nodes fails
		publisher.Until("window.weir.state === 'live'")
	}
	tb := openForeign(t, second.URL, "", fmt.Sprintf(`<weir-player id="player" muted token="a.b.c" src="%s/whep/demo" nodes="%s"></weir-player>`, first.URL, second.URL))
	tb.Expect("ERR_")
	tb.Until("window.weir?.playing")
	first.fall(t)
	tb.Until(fmt.Sprintf("window.weir.playing && window.weir.node === %q", second.URL))
	if got, want := browser.Eval[[]string](tb, "window.events.map(e => e.type)"), "playing stalled moved playing"; strings.Join(got, " ") != want {
		t.Errorf("the events are %q, want %s", got, want)
	}
	if got := browser.Eval[string](tb, "window.events.find(e => e.type === 'moved').from"); got != first.URL {
		t.Errorf("it moved from %q, want %s", got, first.URL)
	}
}

// fall makes the node stop answering, as in a power failure.
func (n *fakeNode) fall(t *testing.T) {
	t.Helper()
	n.CloseClientConnections()
	n.Listener.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, pc := range n.sessions {
		if err := pc.Close(); err != nil {
			t.Error(err)
		}
	}
}
