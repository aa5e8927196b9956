package web

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	browserapi "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"

	"weir/sfu/problem"
	"weir/testnet/browser"
)

// publishAt opens the publish page and starts the test pattern.
func publishAt(t *testing.T, url, stream string) *browser.Tab {
	t.Helper()
	tb := newTab(t, 1440, 900)
	tb.Do(chromedp.Navigate(url+"/publish"), chromedp.WaitVisible(chromedp.CSS("#start")))
	browser.Eval[any](tb, fmt.Sprintf(`{ const input = document.querySelector('#stream'); input.value = %q; input.dispatchEvent(new Event('input')); 1 }`, stream))
	tb.Click("#start")
	return tb
}

// withURLs is a network of nodes with real public addresses; the first one
// serves the page.
func withURLs(urls ...string) map[string]any {
	nodes := []any{}
	for i, url := range urls {
		nodes = append(nodes, nodeEntry(i, "eu-central", url, 0.1, usage{int64(i), 40}))
	}
	return map[string]any{"self": peerID(0), "network": "open", "nodes": nodes, "streams": []any{}}
}

func live(n *fakeNode, stream string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.tracks[stream]) >= 2
}

func TestPublishAndPlay(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	pub := publishAt(t, n.URL, "hall/one")
	pub.Until("window.weir.state === 'live' && window.weir.framesEncoded > 30 && window.weir.bytesSent > 10000")
	if !live(n, "hall/one") {
		t.Fatal("the node has not two tracks")
	}
	if got := browser.Eval[string](pub, "window.weir.sessionURL"); !strings.HasPrefix(got, n.URL+"/session/in") {
		t.Errorf("sessionURL = %q", got)
	}
	if got := browser.Eval[string](pub, "window.weir.node"); got != peerID(0) {
		t.Errorf("node = %q, want %q", got, peerID(0))
	}
	if got, want := browser.Eval[string](pub, "document.querySelector('#viewer-link').href"), n.URL+"/play/hall/one"; got != want {
		t.Errorf("the viewers' link is %q, want %q", got, want)
	}
	pub.Until(`/^[\d.]+\s(k|M)bit\/s$/.test(document.querySelector('[data-stat=bitrate]').textContent)`)
	pub.Until(`document.querySelector('[data-stat=resolution]').textContent === '640 × 360'`)

	state := withURLs(n.URL)
	state["streams"] = []any{map[string]any{"stream": "hall/one", "tracks": []string{"video/VP8", "audio/opus"}, "viewers": 1, "carriers": []any{
		carrier(0, -1, 0, 0, 1, "eu-central", n.URL, 0),
	}}}
	n.set(state)
	view := newTab(t, 1440, 900)
	view.Go(n.URL + "/play/hall/one")
	view.Until("window.weir.state === 'live' && window.weir.framesDecoded > 30 && window.weir.bytesReceived > 10000 && window.weir.firstFrame > 0")
	view.Until(`document.querySelector('#served').textContent === 'Served by n1 in eu-central, this node, where it is published.'`)
	view.Until(`document.querySelector('[data-stat=resolution]').textContent === '640 × 360'`)
	if got := view.Text("#times"); !regexp.MustCompile(`^First frame .+ after the request: answered after .+, media connected after .+\.$`).MatchString(got) {
		t.Errorf("times = %q", got)
	}

	// The picture is the pattern's: its frame number, shown in 16 squares, rises.
	const number = `(() => {
		const v = document.querySelector('#player').video, c = document.createElement('canvas');
		c.width = v.videoWidth; c.height = v.videoHeight;
		const g = c.getContext('2d', {willReadFrequently: true});
		g.drawImage(v, 0, 0);
		let n = 0;
		for (let i = 0; i < 16; i++) n = n * 2 + (g.getImageData((i + 0.5) * c.width / 16, c.height * 0.94, 1, 1).data[1] > 127 ? 1 : 0);
		return n;
	})()`
	first := browser.Eval[int](view, number)
	view.Until(fmt.Sprintf("%s > %d", number, first+20))

	// Sound is off until asked for.
	if !browser.Eval[bool](view, "document.querySelector('#player').muted") {
		t.Error("the video starts with sound")
	}
	view.ClickIn("#player", "#unmute")
	view.Until("!document.querySelector('#player').muted && " + inPlayer + ".querySelector('#unmute').ariaLabel === 'Mute'")
	pub.NoOverflow()
	view.NoOverflow()
	if visible := browser.Eval[string](view, "document.visibilityState"); visible != "visible" {
		t.Logf("the play page is %s", visible)
	}
	view.ShootAll("play")
	pub.ShootAll("publish")

	// A bitrate limit applies at once.
	browser.Eval[any](pub, `(() => { const s = document.querySelector('#limit'); s.value = '300'; s.dispatchEvent(new Event('change')); return 1 })()`)
	pub.Until(`parseFloat(document.querySelector('[data-stat=bitrate]').textContent) < 480 && document.querySelector('[data-stat=bitrate]').textContent.endsWith('kbit/s')`)

	viewing := browser.Eval[string](view, "window.weir.sessionURL")
	view.ClickIn("#player", "#play")
	view.Until("window.weir.state === 'stopped' && window.weir.sessionURL === ''")
	waitDeleted(t, n, viewing)

	publishing := browser.Eval[string](pub, "window.weir.sessionURL")
	pub.Click("#stop")
	pub.Until("window.weir.state === 'stopped' && !document.querySelector('#start').hidden")
	waitDeleted(t, n, publishing)
}

// inPlayer is the shadow root of the page's player.
const inPlayer = "document.querySelector('#player').shadowRoot"

// waitDeleted waits for the DELETE of a session, which the page sends without
// waiting for the answer.
func waitDeleted(t *testing.T, n *fakeNode, url string) {
	t.Helper()
	id := url[strings.LastIndex(url, "/")+1:]
	waitFor(t, "DELETE of "+id, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return slices.Contains(n.deleted, id)
	})
}

func TestLeavingTheConsoleEndsTheSession(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	pub := publishAt(t, n.URL, "demo")
	pub.Until("window.weir.state === 'live'")
	url := browser.Eval[string](pub, "window.weir.sessionURL")
	pub.Go("about:blank")
	waitDeleted(t, n, url)
}

// Visiting the network page must not end the publisher's stream.
func TestPublishingGoesOnAcrossPages(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	pub := publishAt(t, n.URL, "demo")
	pub.Until("window.weir.state === 'live' && window.weir.framesEncoded > 10")
	url := browser.Eval[string](pub, "window.weir.sessionURL")
	pub.Click("nav [data-page=network]")
	pub.Until("window.weir.page === 'network' && document.querySelector('#on-air').textContent === 'Live as demo'")
	pub.ShootAll("network-live")
	pub.Click("#on-air")
	pub.Until("window.weir.page === 'publish' && window.weir.state === 'live' && document.querySelector('#on-air').hidden")
	if got := browser.Eval[string](pub, "window.weir.sessionURL"); got != url {
		t.Errorf("the session is %q, want the same as before, %q", got, url)
	}
	frames := browser.Eval[int](pub, "window.weir.framesEncoded")
	pub.Until(fmt.Sprintf("window.weir.framesEncoded > %d", frames+10))
	pub.Click("#stop")
	waitDeleted(t, n, url)
	pub.Click("nav [data-page=network]")
	pub.Until("window.weir.page === 'network' && document.querySelector('#on-air').hidden")
}

// Browsers throttle hidden pages; the pattern must keep its frame rate.
func TestPatternKeepsItsPaceInAHiddenPage(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	pub := publishAt(t, n.URL, "demo")
	pub.Until("window.weir.state === 'live' && window.weir.framesEncoded > 10")
	window, err := chromedp.CallBrowser(pub.Context(), browserapi.GetWindowForTarget, browserapi.GetWindowForTargetParams{
		TargetID: chromedp.FromContext(pub.Context()).Target.TargetID,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.CallBrowser(pub.Context(), browserapi.SetWindowBounds, browserapi.SetWindowBoundsParams{
		WindowID: window.WindowID, Bounds: &browserapi.Bounds{WindowState: browserapi.WindowStateMinimized},
	}); err != nil {
		t.Fatal(err)
	}
	pub.Until("document.hidden")
	before := browser.Eval[int](pub, "window.weir.framesEncoded")
	after := browser.Eval[int](pub, "new Promise(r => setTimeout(() => r(window.weir.framesEncoded), 3000))")
	// 90 at full pace, 3 if timers were slowed down; a busy machine loses some.
	if after-before < 30 {
		t.Errorf("%d frames in 3 s of a hidden page", after-before)
	}
}

// A publisher on another page still learns that the session is over.
func TestEndOfPublishingIsToldOnOtherPages(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	pub := publishAt(t, n.URL, "demo")
	pub.Expect("status of 403")
	pub.Until("window.weir.state === 'live'")
	url := browser.Eval[string](pub, "window.weir.sessionURL")
	pub.Click("nav [data-page=network]")
	n.setRefuse(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not any more", http.StatusForbidden) })
	n.mu.Lock()
	pc := n.sessions[url[strings.LastIndex(url, "/")+1:]]
	n.mu.Unlock()
	if err := pc.Close(); err != nil {
		t.Fatal(err)
	}
	pub.Until("document.querySelector('#on-air').textContent === 'demo is no longer live'")
	pub.Click("#on-air")
	pub.Until("document.querySelector('#status').textContent === 'not any more' && document.querySelector('#on-air').hidden && !document.querySelector('#start').hidden")
}

// A start while the camera is being opened waits for it.
func TestCameraPublishes(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	tb := newTab(t, 1440, 900)
	tb.Go(n.URL + "/publish")
	tb.Until("document.querySelector('#source-camera')")
	browser.Eval[any](tb, "document.querySelector('#source-camera').click(), document.querySelector('#start').click(), 1")
	tb.Until("window.weir.state === 'live' && window.weir.framesEncoded > 10")
	tb.Until("document.querySelector('#preview').videoWidth > 0 && document.querySelector('#preview').srcObject.getAudioTracks().length === 1")
	waitFor(t, "two tracks", func() bool { return live(n, "demo") })
}

// Nothing moves when the camera opens, so a click on the start button meets it.
func TestStartStaysInPlaceWhenTheCameraOpens(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	const top = "document.querySelector('#start').getBoundingClientRect().top"
	for _, width := range []int64{1440, 390} {
		tb := newTab(t, width, 900)
		tb.Inject(`navigator.mediaDevices.getUserMedia = new Proxy(navigator.mediaDevices.getUserMedia, {
			async apply(...call) {
				await new Promise((resolve) => { window.allowCamera = resolve; });
				return Reflect.apply(...call);
			},
		})`)
		tb.Go(n.URL + "/publish")
		tb.Until("document.querySelector('#where').textContent === 'n1'") // the state has come
		browser.Eval[any](tb, "document.querySelector('#source-camera').click(), 1")
		before := browser.Eval[float64](tb, top)
		browser.Eval[any](tb, "window.allowCamera(), 1")
		tb.Until("document.querySelector('#camera').selectedOptions[0]?.textContent.includes('fake')")
		if after := browser.Eval[float64](tb, top); after != before {
			t.Errorf("%d px: the button is %v px from the top, %v before the camera was there", width, after, before)
		}
	}
}

// The camera and the microphone can be chosen, also while live, and are
// remembered; the page shows the sound level, and a muted microphone.
func TestDevicesAreChosen(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	tb := newTab(t, 1440, 900)
	tb.Go(n.URL + "/publish")
	tb.Click("#source-camera")
	tb.Until("document.querySelector('#camera').selectedOptions[0]?.textContent.includes('fake') && document.querySelectorAll('#microphone option').length >= 3")
	tb.NoOverflow()
	tb.Click("#start")
	tb.Until("window.weir.state === 'live' && window.weir.framesEncoded > 10")
	session := browser.Eval[string](tb, "window.weir.sessionURL")
	// Chromium's made-up microphone beeps.
	tb.Until("Number(document.querySelector('[role=meter]').getAttribute('aria-valuenow')) > -50")
	tb.ShootAll("publish-camera")

	other := browser.Eval[string](tb, `(() => {
		const s = document.querySelector('#microphone');
		const other = [...s.options].find(o => o.value !== s.value && o.value !== 'none');
		s.value = other.value;
		s.dispatchEvent(new Event('change'));
		return other.textContent;
	})()`)
	const sent = "document.querySelector('#preview').srcObject.getAudioTracks()[0]?.label"
	tb.Until(fmt.Sprintf("%s === %q && document.querySelector('#microphone').selectedOptions[0].textContent === %[2]q", sent, other))
	if got := browser.Eval[string](tb, "window.weir.sessionURL"); got != session {
		t.Errorf("another microphone made the session %q of %q", got, session)
	}

	press := "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'm', bubbles: true})), 1"
	browser.Eval[any](tb, press)
	tb.Until("document.querySelector('#mute').ariaPressed === 'true' && !document.querySelector('#preview').srcObject.getAudioTracks()[0].enabled && document.querySelector('.on-air').textContent.endsWith('muted')")
	for _, scheme := range []string{"light", "dark"} {
		tb.Scheme(scheme)
		for _, bad := range browser.Eval[[]string](tb, contrast) {
			t.Errorf("%s: too little contrast: %s", scheme, bad)
		}
	}
	for _, bad := range browser.Eval[[]string](tb, nameless) {
		t.Errorf("no name: %s", bad)
	}
	tb.Until("document.querySelector('.level-hint').textContent === 'Muted' && document.querySelector('[role=meter]').ariaValueText === 'silence'")
	browser.Eval[any](tb, press)
	tb.Until("document.querySelector('#mute').ariaPressed === 'false' && document.querySelector('#preview').srcObject.getAudioTracks()[0].enabled")
	tb.Click("#stop")
	waitDeleted(t, n, session)

	tb.Go(n.URL + "/publish")
	tb.Click("#source-camera")
	tb.Until(fmt.Sprintf("document.querySelector('#microphone').selectedOptions[0]?.textContent === %q && %s === %[1]q", other, sent))
	// A remembered device that has gone is replaced, and the page says so.
	browser.Eval[any](tb, "localStorage.setItem('weir.microphone', 'gone'), 1")
	tb.Go(n.URL + "/publish")
	tb.Click("#source-camera")
	tb.Until("document.querySelector('#device-hint').textContent === 'The microphone chosen before is not here, so the browser took another.'")
	// "None" is a choice too.
	browser.Eval[any](tb, `(() => { const s = document.querySelector('#microphone'); s.value = 'none'; s.dispatchEvent(new Event('change')); })()`)
	tb.Until("document.querySelector('#preview').srcObject?.getAudioTracks().length === 0 && document.querySelector('.sound-row').hidden")
}

// A node that is full answers 307 to another origin; the browser follows.
func TestRedirectsAreFollowed(t *testing.T) {
	full, helper := newFakeNode(t), newFakeNode(t)
	state := withURLs(full.URL, helper.URL)
	full.set(state)
	full.setRefuse(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", helper.URL+r.URL.Path+"?ticket=abc")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	pub := publishAt(t, full.URL, "demo")
	pub.Until("window.weir.state === 'live' && window.weir.framesEncoded > 10")
	if got := browser.Eval[string](pub, "window.weir.sessionURL"); !strings.HasPrefix(got, helper.URL) {
		t.Errorf("the session is %q, want it at %s", got, helper.URL)
	}
	host := strings.TrimPrefix(full.URL, "http://")
	if got, want := pub.Text("#served"), "Published at n2 in eu-central: "+host+" handed you on to it."; got != want {
		t.Errorf("served = %q, want %q", got, want)
	}
	waitFor(t, "two tracks", func() bool { return live(helper, "demo") })
	state["streams"] = []any{map[string]any{"stream": "demo", "tracks": []string{"video/VP8"}, "viewers": 1, "carriers": []any{
		carrier(2, -1, 0, 0, 1, "us-east", "", 2), carrier(1, 2, 1, 1, 0, "eu-central", helper.URL, 2, 1),
	}}}
	full.set(state)

	view := newTab(t, 1440, 900)
	view.Go(full.URL + "/play/demo")
	view.Until("window.weir.state === 'live' && window.weir.framesDecoded > 10")
	view.Until("window.weir.node === '" + peerID(1) + "' && window.weir.hops === 1")
	if got, want := view.Text("#served"), "Served by n2 in eu-central ("+host+" handed you on), 1 hop from where it is published."; got != want {
		t.Errorf("served = %q, want %q", got, want)
	}
	if got := browser.Eval[[]string](view, `[...document.querySelectorAll('#route li')].map(l => l.innerText.replace(/\s+/g, ' '))`); len(got) != 3 || got[1] != "n2 serves you" || got[2] != "you" {
		t.Errorf("route = %q", got)
	}
	view.ShootAll("play-redirected")
	pub.ShootAll("publish-redirected")
}

func TestPlaySaysWhatTheNodeSaid(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	answer := func(status int, retryAfter, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if retryAfter != "" {
				w.Header().Set("Retry-After", retryAfter)
			}
			http.Error(w, text, status)
		}
	}
	for _, c := range []struct {
		name, shot string
		refuse     http.HandlerFunc
		state      string
		want       string
	}{
		{"not live yet is retried", "409", answer(409, "7", "nobody publishes demo now"), "waiting", `^Not live yet nobody publishes demo now Trying again in [67] s$`},
		{"no room is retried", "503", answer(503, "9", "refused: sessions: 4 of 4 sessions in use on every node asked"), "waiting", `^No room now refused: sessions: 4 of 4 sessions in use on every node asked Trying again in [89] s$`},
		{"of a problem the sentence is shown", "", func(w http.ResponseWriter, _ *http.Request) {
			problem.New(problem.OriginUnreachable, `stream "demo" is live, but cannot be reached`).Retry(9 * time.Second).Write(w)
		}, "waiting", `^The stream’s origin cannot be reached stream "demo" is live, but cannot be reached Trying again in [89] s$`},
		{"without Retry-After it backs off", "", answer(503, "", "no room"), "waiting", `^No room now no room Trying again in [12] s$`},
		{"an unknown stream is final", "404", answer(404, "", "no such stream"), "failed", `^No such stream no such stream$`},
		{"a refusal is final", "", answer(403, "", "ticket has expired"), "failed", `^Refused \(403\) ticket has expired$`},
		{"markup in an error stays text", "", answer(404, "", "<img src=x onerror=alert(1)>"), "failed", `^No such stream <img src=x onerror=alert\(1\)>$`},
		{"only one line is shown", "", answer(404, "", "first\nsecond"), "failed", `^No such stream first$`},
		{"an answer that is no SDP", "", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/session/x")
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write([]byte("v=0 nonsense"))
		}, "failed", `^Not connected The node's answer could not be used: `},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.setRefuse(c.refuse)
			tb := newTab(t, 1440, 900)
			tb.Expect(`the server responded with a status of (40[349]|503)`)
			tb.Go(n.URL + "/play/demo")
			tb.Until(fmt.Sprintf("window.weir.state === %q", c.state))
			got := browser.Eval[string](tb, `[...`+inPlayer+`.querySelector('#error').children].map(e => e.textContent).join(' ')`)
			if !regexp.MustCompile(c.want).MatchString(got) {
				t.Errorf("the page says %q, want %s", got, c.want)
			}
			if browser.Eval[bool](tb, inPlayer+`.querySelector('.overlay').hidden || `+inPlayer+`.querySelectorAll('img').length > 0`) {
				t.Error("the message is hidden or became markup")
			}
			if c.shot != "" {
				tb.ShootAll("play-" + c.shot)
			}
		})
	}
}

// A waiting viewer gets the stream as soon as it exists, and a new session if
// its session breaks.
func TestPlayWaitsAndReconnects(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	view := newTab(t, 1440, 900)
	view.Expect("status of 409")
	view.Go(n.URL + "/play/demo")
	view.Until("window.weir.state === 'waiting' && window.weir.status === 409")
	pub := publishAt(t, n.URL, "demo")
	pub.Until("window.weir.state === 'live'")
	view.Until("window.weir.state === 'live' && window.weir.framesDecoded > 10")

	first := browser.Eval[string](view, "window.weir.sessionURL")
	n.mu.Lock()
	pc := n.sessions[first[strings.LastIndex(first, "/")+1:]]
	n.mu.Unlock()
	if err := pc.Close(); err != nil {
		t.Fatal(err)
	}
	view.Until("window.weir.state === 'waiting'")
	// The last picture stays until then; it is not black.
	view.Until("!" + inPlayer + ".querySelector('#still').hidden")
	if got := browser.Eval[int](view, inPlayer+".querySelector('#still').getContext('2d').getImageData(20, 20, 1, 1).data[1]"); got < 100 {
		t.Errorf("while it waits the picture's corner has a green of %d, want the pattern's, which is bright", got)
	}
	view.Until(fmt.Sprintf("window.weir.state === 'live' && window.weir.sessionURL !== %q && window.weir.framesDecoded > 10", first))
}

func TestPublishRefusals(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	n.setRefuse(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "demo is being published already", http.StatusConflict)
	})
	tb := publishAt(t, n.URL, "demo")
	tb.Expect("status of (409|503)")
	tb.Until("window.weir.state === 'failed'")
	if got, want := tb.Text("#status"), "demo is being published already. Choose another name, or try again later."; got != want {
		t.Errorf("status = %q, want %q", got, want)
	}
	tb.Shoot("publish-409")
	n.setRefuse(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "2")
		http.Error(w, "refused: sessions: 4 of 4 sessions in use", http.StatusServiceUnavailable)
	})
	tb.Click("#start")
	tb.Until("window.weir.state === 'waiting' && document.querySelector('#status').textContent.includes('4 of 4 sessions in use. Trying again in ')")
	n.setRefuse(nil)
	tb.Until("window.weir.state === 'live'")
}

func TestPublishChecksTheName(t *testing.T) {
	n := newFakeNode(t)
	n.set(withURLs(n.URL))
	for _, name := range []string{"", "two words", "a//b", "/a", "a/../b", "größe", strings.Repeat("x", 129)} {
		tb := publishAt(t, n.URL, name)
		if len(name) == 129 {
			// The input takes 128 characters from a keyboard; a script may set more.
			tb.Until("document.querySelector('#stream-problem').textContent === 'At most 128 characters.'")
		}
		tb.Until("document.querySelector('#stream-problem').textContent !== '' && document.activeElement.id === 'stream'")
		if got := browser.Eval[string](tb, "window.weir.state"); got != "idle" {
			t.Errorf("%q: state = %q, want idle", name, got)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.posts != 0 {
		t.Errorf("%d offers were sent", n.posts)
	}
}
