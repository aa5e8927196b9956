package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"weir/testnet/browser"
)

// chromium is started once for all tests.
var chromium struct {
	once sync.Once
	c    *browser.Chromium
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if chromium.c != nil {
		if err := chromium.c.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func newTab(t *testing.T, width, height int64) *browser.Tab {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser is too slow for -short")
	}
	chromium.once.Do(func() { chromium.c, chromium.err = browser.Start() })
	if chromium.err != nil {
		t.Fatal(chromium.err)
	}
	return chromium.c.Open(t, width, height)
}

func TestNetworkPageShowsTheRecords(t *testing.T) {
	n := newFakeNode(t)
	n.set(busyNetwork(n.URL))
	tb := newTab(t, 1440, 900)
	tb.Go(n.URL)
	tb.Until("document.querySelectorAll('#nodes tbody .row').length === 12")
	tb.Until("document.querySelector('#feed').textContent === 'Live'")
	if got, want := tb.Text("#headline"), "12 nodes in 3 regions carry 3 streams to 157 viewers."; got != want {
		t.Errorf("headline = %q, want %q", got, want)
	}
	if got, want := tb.Text("#subline"), "3 origins and 7 relays over 7 cascade links, at most 2 hops deep. 1 full and 1 draining."; got != want {
		t.Errorf("subline = %q, want %q", got, want)
	}
	row := fmt.Sprintf(`[...document.querySelectorAll('#nodes [data-node="%s"] > *')].map(c => c.innerText.replace(/\s+/g, ' ').trim())`, peerID(0))
	cells := browser.Eval[[]string](tb, row)
	id := peerID(0)
	for i, want := range []string{
		"n1 this node 12D3…\u2060" + id[len(id)-6:], "eu-central", "full", "95 %", "59 %", "456 / 500 Mbit/s", "40 / 40", "0",
		"", "n2, n5 +2",
	} {
		if want != "" && cells[i] != want {
			t.Errorf("column %d of this node = %q, want %q", i, cells[i], want)
		}
	}
	if ok, _ := regexp.MatchString(`^\d+\.\d s old 1\d\.\d s left$`, cells[8]); !ok {
		t.Errorf("record = %q, want its age and what is left", cells[8])
	}
	// The age keeps counting between events.
	tb.Until(fmt.Sprintf("%s[8] !== %q", row, cells[8]))

	type link struct{ From, To, Stream string }
	links := browser.Eval[[]link](tb, `[...document.querySelectorAll('.link')].map(l => ({From: l.dataset.from, To: l.dataset.to, Stream: l.dataset.stream}))`)
	want := map[link]bool{
		{peerID(0), peerID(3), "keynote"}: true, {peerID(0), peerID(1), "keynote"}: true, {peerID(1), peerID(10), "keynote"}: true,
		{peerID(3), peerID(5), "keynote"}: true, {peerID(0), peerID(2), "keynote"}: true,
		{peerID(7), peerID(2), "hall/camera.2"}: true, {peerID(4), peerID(8), "backstage"}: true,
	}
	if len(links) != len(want) {
		t.Errorf("%d links drawn, want %d", len(links), len(want))
	}
	for _, l := range links {
		if !want[l] {
			t.Errorf("link %v drawn", l)
		}
	}
	width := func(from, to int) float64 {
		return browser.Eval[float64](tb, fmt.Sprintf(`+document.querySelector('.link[data-from="%s"][data-to="%s"] .line').getAttribute('stroke-width')`, peerID(from), peerID(to)))
	}
	if thick, thin := width(0, 3), width(0, 2); thick <= thin {
		t.Errorf("a link with 44 viewers behind it is %.1f wide, one with 3 is %.1f", thick, thin)
	}
	if got := browser.Eval[int](tb, "document.querySelectorAll('.picture .node').length"); got != 12 {
		t.Errorf("%d nodes drawn, want 12", got)
	}
	if got, want := browser.Eval[string](tb, `document.querySelector('.stream[data-stream="hall/camera.2"]').innerText.replace(/\s+/g, ' ')`),
		"hall/camera.2 Play 25 viewers · 2 carriers, 1 hop deep From n8 in us-east video H264, audio opus"; got != want {
		t.Errorf("stream = %q, want %q", got, want)
	}
	if got := browser.Eval[string](tb, `document.querySelector('.stream[data-stream="hall/camera.2"] a').getAttribute('href')`); got != "/play/hall/camera.2" {
		t.Errorf("the play button leads to %q", got)
	}
	tb.NoOverflow()
	tb.ShootAll("network")
	tb.Do(chromedp.EmulateViewport(390, 844))
	tb.NoOverflow()
}

// Motion in the picture must come from the network.
func TestPictureStaysPut(t *testing.T) {
	n := newFakeNode(t)
	state := busyNetwork(n.URL)
	n.set(state)
	tb := newTab(t, 1440, 900)
	tb.Go(n.URL)
	tb.Until("document.querySelectorAll('.picture .node').length === 12")
	const where = `JSON.stringify([...document.querySelectorAll('.picture .node')].map(n => [n.dataset.node, n.getAttribute('transform')]).sort())`
	before := browser.Eval[string](tb, where)

	// One node leaves, and the record of another is new.
	nodes := state["nodes"].([]any)
	without := busyNetwork(n.URL)
	without["nodes"] = append(append([]any{}, nodes[:9]...), nodes[10:]...)
	n.set(without)
	tb.Until("document.querySelectorAll('.picture .node').length === 11")
	var was, is [][2]string
	for s, v := range map[string]*[][2]string{before: &was, browser.Eval[string](tb, where): &is} {
		if err := json.Unmarshal([]byte(s), v); err != nil {
			t.Fatal(err)
		}
	}
	places := make(map[string]string)
	for _, p := range was {
		places[p[0]] = p[1]
	}
	for _, p := range is {
		if places[p[0]] != p[1] {
			t.Errorf("%s moved from %s to %s when another node left", p[0], places[p[0]], p[1])
		}
	}
	n.set(busyNetwork(n.URL))
	tb.Until("document.querySelectorAll('.picture .node').length === 12")
	if after := browser.Eval[string](tb, where); after != before {
		t.Errorf("back to the same network, another picture:\n%s\n%s", before, after)
	}
}

func TestPictureIsUsableByKeyboard(t *testing.T) {
	n := newFakeNode(t)
	n.set(busyNetwork(n.URL))
	tb := newTab(t, 1440, 900)
	tb.Go(n.URL)
	tb.Until("document.querySelectorAll('.link').length === 7")
	if got := browser.Eval[int](tb, `document.querySelectorAll('.picture [tabindex="0"]').length`); got != 1 {
		t.Errorf("the picture has %d tab stops, want 1", got)
	}
	browser.Eval[any](tb, fmt.Sprintf(`document.querySelector('.node[data-node="%s"]').focus(), 1`, peerID(0)))
	tb.Until("document.querySelector('#details').textContent.includes('n1 (this node)')")
	if got := tb.Text("#details"); !strings.Contains(got, "keynote: origin, 38 viewers") || !strings.Contains(got, "sessions 40 / 40") {
		t.Errorf("details = %q", got)
	}
	if got := browser.Eval[int](tb, `document.querySelectorAll('.link.hot').length`); got != 3 {
		t.Errorf("%d links are highlighted, want the node's 3", got)
	}
	tb.Shoot("network-focus")
	tb.Do(chromedp.KeyEvent(kb.End))
	tb.Until("document.activeElement.matches('.link') && document.querySelector('#details').textContent.includes('→')")
	if got := browser.Eval[string](tb, "document.activeElement.getAttribute('aria-label')"); !strings.Contains(got, "sends to") {
		t.Errorf("a link is called %q", got)
	}
	// An update must not move the focus.
	n.set(busyNetwork(n.URL))
	browser.Eval[any](tb, "new Promise(r => setTimeout(() => r(1), 400))")
	if !browser.Eval[bool](tb, "document.activeElement.matches('.link')") {
		t.Error("an update took the focus away")
	}
}

// A picture of many nodes leaves out nodes without room, and stays in its frame.
func TestPictureOfManyNodes(t *testing.T) {
	n := newFakeNode(t)
	tb := newTab(t, 1440, 900)
	for _, count := range []int{2, 40, 150} {
		state := busyNetwork(n.URL)
		nodes := []any{}
		for i := range count {
			e := nodeEntry(i, fmt.Sprintf("region-with-a-long-name-%d", i%5), "", float64(i%11)/11, usage{int64(i), 200})
			e["name"] = ""
			nodes = append(nodes, e)
		}
		state["nodes"] = nodes
		if count == 2 {
			state["streams"] = []any{}
		}
		n.set(state)
		tb.Go(n.URL)
		tb.Until(fmt.Sprintf("document.querySelectorAll('.picture .node').length === Math.max(%d, document.querySelectorAll('.link').length ? 12 : 0)", count))
		for _, width := range []int64{1440, 390} {
			tb.Do(chromedp.EmulateViewport(width, 900))
			tb.Until(fmt.Sprintf("innerWidth === %d && document.querySelector('.picture').getAttribute('width') <= %d", width, width))
			const outside = `(() => {
				const card = document.querySelector('.picture-card').getBoundingClientRect();
				const top = document.querySelector('#picture-title').getBoundingClientRect().bottom;
				const bottom = document.querySelector('.strip').getBoundingClientRect().top;
				return [...document.querySelectorAll('.picture .node, .picture .region')].filter(e => {
					const r = e.getBoundingClientRect();
					return r.left < card.left + 4 || r.right > card.right - 4 || r.top < top - 1 || r.bottom > bottom + 1;
				}).map(e => e.textContent);
			})()`
			const overlapping = `(() => {
				const boxes = [...document.querySelectorAll('.picture .name')].filter(e => getComputedStyle(e).display !== 'none').map(e => [e.textContent, e.getBoundingClientRect()]);
				return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([, q]) => p.left < q.right && q.left < p.right && p.top < q.bottom && q.top < p.bottom).map(([b]) => a + ' and ' + b));
			})()`
			if got := browser.Eval[[]string](tb, overlapping); len(got) > 0 {
				t.Errorf("%d nodes, %d px: names overlap: %q", count, width, got)
			}
			if got := browser.Eval[[]string](tb, outside); len(got) > 0 {
				t.Errorf("%d nodes, %d px: outside the card: %q", count, width, got)
			}
			tb.NoOverflow()
		}
		tb.Do(chromedp.EmulateViewport(1440, 900))
		tb.Shoot(fmt.Sprintf("network-%d", count))
	}
	tb.Do(chromedp.SendKeys(chromedp.CSS("#filter"), "name-3"))
	tb.Until("document.querySelectorAll('#nodes tbody .row').length === 30")
}

func TestNodeDetailsAndSorting(t *testing.T) {
	n := newFakeNode(t)
	n.set(busyNetwork(n.URL))
	tb := newTab(t, 1440, 900)
	tb.Go(n.URL)
	tb.Until("document.querySelectorAll('#nodes tbody .row').length === 12")
	tb.Click(fmt.Sprintf(`#nodes [data-node="%s"] .expand`, peerID(1)))
	tb.Until("document.querySelector('.more:not([hidden])')")
	got := browser.Eval[string](tb, "document.querySelector('.more:not([hidden])').innerText")
	for _, want := range []string{peerID(1), "/ip4/127.0.0.1/tcp/4001", "n3, n6, n7, n11", "keynote: depth 1 from n1", "332 bytes sealed", "itself"} {
		if !strings.Contains(got, want) {
			t.Errorf("the details lack %q:\n%s", want, got)
		}
	}
	tb.Shoot("network-details")
	first := `document.querySelector('#nodes tbody .row').dataset.node`
	tb.Click("#nodes th.col-stress button")
	tb.Until(fmt.Sprintf("%s === %q", first, peerID(9)))
	tb.Click("#nodes th.col-stress button")
	tb.Until(fmt.Sprintf("%s === %q", first, peerID(0)))
	if got := browser.Eval[string](tb, `document.querySelector('th.col-stress').getAttribute('aria-sort')`); got != "descending" {
		t.Errorf("aria-sort = %q", got)
	}
	if !browser.Eval[bool](tb, `!document.querySelector('.more:not([hidden])') || document.querySelector('.more:not([hidden])').previousElementSibling.dataset.node === '`+peerID(1)+`'`) {
		t.Error("the details left their row")
	}
}

// Events are shown with their reason, and with the nodes' names from the first
// frame on; a node that has gone is grey for a while and is not counted.
func TestNetworkPageTellsWhatHappened(t *testing.T) {
	n := newFakeNode(t)
	state := busyNetwork(n.URL)
	gone := peerID(20)
	state["gone"] = []any{map[string]any{"node": gone, "name": "n21", "region": "us-east", "gone_ms": 12000}}
	now := time.Now().UTC()
	state["happened"] = []any{
		map[string]any{"seq": 7, "time": now, "kind": "session.opened", "level": "info", "words": "publisher session opened", "stream": "keynote", "client": "192.0.2.1:4000"},
		map[string]any{"seq": 8, "time": now, "kind": "refused", "level": "warn", "words": "client refused", "stream": "keynote", "reason": "uplink", "detail": "<b>no room</b>"},
		map[string]any{"seq": 9, "time": now, "kind": "redirect", "level": "info", "words": "client redirected", "stream": "keynote", "peer": peerID(3), "reason": "sessions"},
		map[string]any{"seq": 10, "time": now, "kind": "peer.lost", "level": "warn", "words": "peer lost", "peer": gone, "peer_name": "n21", "elapsed_ms": 1500},
	}
	n.set(state)
	tb := newTab(t, 1280, 900)
	tb.Inject(`new MutationObserver(() => {
		const shown = [...document.querySelectorAll('#happened .what, #happened .about')].map(e => e.textContent);
		if (shown.length) window.shownFirst ??= shown;
	}).observe(document, {childList: true, subtree: true})`)
	tb.Go(n.URL)
	tb.Until("window.shownFirst")
	if got, want := browser.Eval[[]string](tb, "window.shownFirst"), []string{
		"Peer lost", "n21 · after 1.5 s",
		"Client redirected", "keynote · n4 · sessions",
		"Client refused", "keynote · uplink · <b>no room</b>",
		"Publisher session opened", "keynote · 192.0.2.1:4000",
	}; !slices.Equal(got, want) {
		t.Errorf("happened = %q, want %q", got, want)
	}
	if got := tb.Text("#headline"); !strings.HasPrefix(got, "12 nodes ") {
		t.Errorf("headline = %q: what is gone counts", got)
	}
	if got := tb.Text("#subline"); !strings.Contains(got, "1 gone") {
		t.Errorf("subline = %q, want one gone", got)
	}
	row := fmt.Sprintf(`document.querySelector('#nodes [data-node="%s"]')`, gone)
	if got := browser.Eval[string](tb, row+".innerText"); !strings.Contains(got, "gone for 12 s") || !strings.Contains(got, "n21") {
		t.Errorf("the row of the node that is gone says %q", got)
	}
	if got := browser.Eval[int](tb, fmt.Sprintf(`document.querySelectorAll('.picture .node.gone[data-node="%s"]').length`, gone)); got != 1 {
		t.Errorf("%d grey nodes in the picture, want 1", got)
	}
	for _, bad := range browser.Eval[[]string](tb, contrast) {
		t.Errorf("too little contrast: %s", bad)
	}
	tb.NoOverflow()
	tb.ShootAll("happened")

	// A holder that did not answer does not make a node "gone".
	state["gone"] = []any{map[string]any{"node": gone, "name": "n21", "region": "us-east", "gone_ms": 12000, "unsure": true}}
	state["hearing"] = map[string]any{"holders": 8, "heard": 6, "silent": []any{map[string]any{"node": gone}, map[string]any{"node": peerID(3)}}}
	n.set(state)
	tb.Until(`document.querySelector('#subline').textContent.includes('2 of 8 holders did not answer, so nodes may be missing here')`)
	tb.Until(row + ".innerText.includes('not heard of for 12 s')")
}

// A client that may not see the network gets the player, by the stream's name.
func TestStrangersGetThePlayer(t *testing.T) {
	n := newFakeNode(t)
	n.set(map[string]any{"limited": true, "nodes": []any{}, "streams": []any{}, "elsewhere": []string{}})
	tb := newTab(t, 1280, 900)
	tb.Go(n.URL)
	tb.Until("document.documentElement.hasAttribute('data-limited') && document.querySelector('h1').textContent === 'Play'")
	if browser.Eval[bool](tb, `[...document.querySelectorAll('nav a')].some(a => a.checkVisibility() && a.dataset.page === 'network')`) {
		t.Error("a link to the network is shown")
	}
	if browser.Eval[bool](tb, `document.querySelector('#choose, #nothing-live').checkVisibility()`) {
		t.Error("the streams are listed")
	}
	tb.ShootAll("limited")
}

func TestEmptyNetworksSayWhatToDo(t *testing.T) {
	n := newFakeNode(t)
	tb := newTab(t, 1440, 900)
	tb.Go(n.URL)
	tb.Until("document.querySelector('#headline').textContent === 'No node has published a record yet.'")
	if got := tb.Text("#help"); !strings.Contains(got, "weir status") {
		t.Errorf("help = %q", got)
	}
	tb.ShootAll("empty")

	n.set(quietNetwork(n.URL, 1))
	tb.Until("document.querySelector('#headline').textContent === '1 node is up; no stream is published.'")
	if got, want := tb.Text("#help code"), "weir node --bootstrap /ip4/127.0.0.1/udp/4000/quic-v1/p2p/"+peerID(0); got != want {
		t.Errorf("command = %q, want %q", got, want)
	}
	if got := tb.Text("#no-streams"); !strings.Contains(got, "weir publish --pattern "+n.URL+"/whip/demo") {
		t.Errorf("no streams: %q", got)
	}
	tb.ShootAll("alone")

	n.set(quietNetwork(n.URL, 5))
	tb.Until("document.querySelector('#headline').textContent === '5 nodes are up; no stream is published.'")
	if !browser.Eval[bool](tb, "document.querySelector('#help').hidden") {
		t.Error("five nodes need no help to find each other")
	}
	if got := tb.Text("#no-links"); !strings.Contains(got, "once a stream is watched through a node other than its own") {
		t.Errorf("no links: %q", got)
	}
	tb.ShootAll("quiet")

	tb.Go(n.URL + "/play")
	tb.Until("!document.querySelector('#nothing-live').hidden")
	tb.ShootAll("play-empty")
}

// Everything in a record was written by someone else.
func TestHostileNamesStayText(t *testing.T) {
	const evil = `<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>`
	n := newFakeNode(t)
	state := busyNetwork(n.URL)
	nodes := state["nodes"].([]any)
	first := nodes[0].(map[string]any)
	first["name"] = evil
	record := first["record"].(map[string]any)
	record["region"], record["zone"], record["release"], record["state"] = evil, evil, evil, evil
	record["addrs"] = []string{evil}
	record["features"] = []string{evil}
	nodes[1].(map[string]any)["record"].(map[string]any)["url"] = "javascript:window.hacked=1"
	bad := nodes[2].(map[string]any)
	bad["valid"], bad["error"] = false, evil
	nodes[3] = map[string]any{"record": nil, "signer": peerID(3), "valid": false, "error": "malformed", "held_by": nil}
	stream := state["streams"].([]any)[0].(map[string]any)
	stream["stream"] = evil
	stream["tracks"] = []string{evil}
	// Records of different ages can name each other as parents.
	loop := state["streams"].([]any)[2].(map[string]any)["carriers"].([]any)
	loop[0].(map[string]any)["parent"] = peerID(8)
	n.set(state)

	tb := newTab(t, 1440, 900)
	tb.Go(n.URL)
	tb.Until("document.querySelectorAll('#nodes tbody .row').length === 12")
	browser.Eval[any](tb, `document.querySelectorAll('.expand').forEach(b => b.click()), 1`)
	if !browser.Eval[bool](tb, `document.querySelector('.stream-name').textContent.startsWith('<img') || [...document.querySelectorAll('.stream-name')].some(e => e.textContent.startsWith('<img'))`) {
		t.Error("the stream's name is not shown as it is")
	}
	for _, path := range []string{"/", "/play", "/publish", "/play/%3Cimg%20src=x%20onerror=%22window.hacked=1%22%3E"} {
		tb.Go(n.URL + path)
		tb.Until("document.querySelector('#feed').textContent === 'Live'")
		browser.Eval[any](tb, "new Promise(r => setTimeout(() => r(1), 300))")
		if got := browser.Eval[string](tb, `[window.hacked, document.querySelectorAll('main img, main script, header img').length, document.querySelectorAll('[href^="javascript:"], option[value^="javascript:"]').length].join()`); got != ",0,0" {
			t.Errorf("%s: hacked, elements, links = %s", path, got)
		}
	}
	if got := browser.Eval[string](tb, "window.weir.state"); got != "failed" {
		t.Errorf("a name that cannot be a stream's: state = %q, want failed", got)
	}
	// The browser itself must refuse markup, independently of the console's code.
	if got := browser.Eval[string](tb, `(() => { try { document.body.innerHTML = '<b>x</b>'; return 'set'; } catch (e) { return e.name; } })()`); got != "TypeError" {
		t.Errorf("assigning innerHTML: %s, want a TypeError from Trusted Types", got)
	}
	tb.Expect("TrustedHTML|policy broken: require-trusted-types-for|Trusted Type")
}

func TestFeedFallsBackAndRecovers(t *testing.T) {
	n := newFakeNode(t)
	n.events = false
	n.set(quietNetwork(n.URL, 2))
	tb := newTab(t, 1440, 900)
	tb.Expect("console/events|console/state|ERR_")
	tb.Go(n.URL)
	tb.Until("document.querySelector('#feed').textContent === 'Polling'")
	n.set(quietNetwork(n.URL, 4))
	tb.Until("document.querySelectorAll('#nodes tbody .row').length === 4")

	// The node stops, and comes back at the same address.
	address := n.Listener.Addr().String()
	n.CloseClientConnections()
	n.Close()
	tb.Until("!document.querySelector('#banner').hidden && document.querySelector('#feed').textContent === 'No contact'")
	if got := tb.Text("#banner"); !strings.Contains(got, "has not answered for") {
		t.Errorf("banner = %q", got)
	}
	tb.ShootAll("lost")
	if got := browser.Eval[int](tb, "document.querySelectorAll('#nodes tbody .row').length"); got != 4 {
		t.Errorf("what was known is gone: %d rows", got)
	}
	n.mu.Lock()
	n.events = true
	n.mu.Unlock()
	back := &http.Server{Addr: address, Handler: n.Config.Handler, ReadHeaderTimeout: time.Second}
	done := make(chan error, 1)
	go func() { done <- back.ListenAndServe() }()
	t.Cleanup(func() {
		_ = back.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the node that came back: %v", err)
		}
	})
	tb.Until("document.querySelector('#banner').hidden && document.querySelector('#feed').textContent === 'Live'")
}

// contrast lists the visible texts whose contrast with their background is
// below WCAG's AA: 4.5, or 3 for large text. Text over video or under a
// translucent colour is left out, and so is disabled text.
const contrast = `(() => {
	const rgba = (css) => {
		const m = css.match(/^rgba?\(([^)]+)\)$/);
		if (m) { const v = m[1].split(/[ ,\/]+/).map(Number); return [v[0], v[1], v[2], v[3] ?? 1]; }
		const c = css.match(/^color\(srgb ([^)]+)\)$/);
		if (c) { const v = c[1].split(/[ \/]+/).map(Number); return [v[0] * 255, v[1] * 255, v[2] * 255, v[3] ?? 1]; }
		return null;
	};
	const lum = (c) => {
		const [r, g, b] = c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const bad = [];
	for (const el of document.querySelectorAll('body *')) {
		if (![...el.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
		if (!el.getClientRects().length || el.closest('.screen, option, .skip') || el.closest(':disabled, :has(> :disabled)')) continue;
		const style = getComputedStyle(el);
		if (style.visibility === 'hidden') continue;
		const ink = rgba(el instanceof SVGElement ? style.fill : style.color);
		let at = el, behind = null;
		while (at && !behind) {
			const c = rgba(getComputedStyle(at).backgroundColor);
			if (c && c[3] > 0) behind = c;
			at = at.parentElement;
		}
		if (!ink || !behind || behind[3] < 1) continue;
		const [a, b] = [lum(ink), lum(behind)].sort((x, y) => y - x);
		const ratio = (a + 0.05) / (b + 0.05);
		const size = parseFloat(style.fontSize);
		if (ratio < (size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5)) bad.push(el.textContent.trim().slice(0, 40) + ' ' + ratio.toFixed(2));
	}
	return bad;
})()`

// nameless lists the controls without an accessible name.
const nameless = `[document, ...[...document.querySelectorAll('weir-player')].map(p => p.shadowRoot)]
	.flatMap(root => [...root.querySelectorAll('a[href], button, input, select, [role=img], [role=group], [role=meter], video')])
	.filter(e => e.getClientRects().length && !(e.textContent.trim() || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.labels?.length))
	.map(e => e.outerHTML)`

func TestPagesAreReadableAndNamed(t *testing.T) {
	n := newFakeNode(t)
	n.set(busyNetwork(n.URL))
	for _, path := range []string{"/", "/publish", "/play", "/play/demo"} {
		tb := newTab(t, 1440, 900)
		tb.Expect("status of 409")
		tb.Go(n.URL + path)
		tb.Until("document.querySelector('#feed').textContent === 'Live' && document.querySelectorAll('#nodes .row, #through option, #choose li').length > 1 || location.pathname === '/play' && document.querySelectorAll('#choose li').length === 3")
		for _, scheme := range []string{"light", "dark"} {
			tb.Scheme(scheme)
			for _, bad := range browser.Eval[[]string](tb, contrast) {
				t.Errorf("%s, %s: too little contrast: %s", path, scheme, bad)
			}
		}
		for _, bad := range browser.Eval[[]string](tb, nameless) {
			t.Errorf("%s: no name: %s", path, bad)
		}
		if got := browser.Eval[int](tb, "document.querySelectorAll('h1').length"); got != 1 {
			t.Errorf("%s has %d first headings", path, got)
		}
		for _, width := range []int64{390, 800, 1024, 1440, 1920} {
			tb.Do(chromedp.EmulateViewport(width, 900))
			tb.Until(fmt.Sprintf("innerWidth === %d", width))
			tb.NoOverflow()
		}
	}
}
