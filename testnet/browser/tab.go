package browser

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

const (
	// tabLife bounds one test's use of a tab.
	tabLife = 90 * time.Second
	// patience is how long a page may take for any request of a test.
	patience = 30 * time.Second
	// look is the interval at which a page is polled.
	look = 40 * time.Millisecond
)

// Tab is one page under test, in a profile of its own. At the end of the test
// it fails if the page wrote anything to its console that the test did not
// [Tab.Expect], or violated its content security policy.
//
// All methods but Expect fail the test at once if the page does not answer:
// call them from the test's own goroutine.
type Tab struct {
	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	said     []string
	expected []*regexp.Regexp
}

// Open opens an empty tab of that size, in light colours and without
// animations. It is closed when the test ends.
func (c *Chromium) Open(t testing.TB, width, height int64) *Tab {
	t.Helper()
	tb := &Tab{t: t}
	ctx, cancel := chromedp.NewContext(c.ctx, chromedp.WithNewBrowserContext(), chromedp.WithListener(tb.listen))
	t.Cleanup(cancel)
	tb.ctx, cancel = context.WithTimeout(ctx, tabLife)
	t.Cleanup(cancel)
	t.Cleanup(tb.checkSaid)
	tb.Do(chromedp.EmulateViewport(width, height))
	const watch = `addEventListener('securitypolicyviolation', e => console.error('policy broken: ' + e.violatedDirective + ' ' + e.blockedURI))`
	if _, err := chromedp.Call(tb.ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: watch}); err != nil {
		t.Fatal(err)
	}
	tb.Scheme("light")
	return tb
}

func (tb *Tab) listen(ev any) {
	var line string
	switch ev := ev.(type) {
	case *runtime.EventConsoleAPICalled:
		line = string(ev.Type)
		for _, a := range ev.Args {
			line += " " + string(a.Value)
		}
	case *runtime.EventExceptionThrown:
		line = "exception " + ev.ExceptionDetails.Text
		if ev.ExceptionDetails.Exception != nil {
			line += " " + ev.ExceptionDetails.Exception.Description
		}
	case *log.EventEntryAdded:
		line = fmt.Sprintf("%s %s %s", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL)
	default:
		return
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.said = append(tb.said, line)
}

// Expect allows console messages that match the pattern.
func (tb *Tab) Expect(pattern string) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.expected = append(tb.expected, regexp.MustCompile(pattern))
}

// UntilSaid waits for a console message that matches the pattern, and allows it.
func (tb *Tab) UntilSaid(pattern string) {
	tb.t.Helper()
	tb.Expect(pattern)
	said := regexp.MustCompile(pattern).MatchString
	tick := time.NewTicker(look)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		tb.mu.Lock()
		found := slices.ContainsFunc(tb.said, said)
		tb.mu.Unlock()
		if found {
			return
		}
		if time.Now().After(deadline) {
			tb.t.Fatalf("the page did not say %s", pattern)
		}
	}
}

func (tb *Tab) checkSaid() {
	tb.mu.Lock()
	defer tb.mu.Unlock()
next:
	for _, line := range tb.said {
		for _, re := range tb.expected {
			if re.MatchString(line) {
				continue next
			}
		}
		tb.t.Errorf("the page said: %s", line)
	}
}

// Context is for actions without a method of Tab.
func (tb *Tab) Context() context.Context { return tb.ctx }

// Do runs steps.
func (tb *Tab) Do(steps ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	if err := chromedp.Do(tb.ctx, steps...); err != nil {
		tb.t.Fatal(err)
	}
}

// Go opens url.
func (tb *Tab) Go(url string) {
	tb.t.Helper()
	tb.Do(chromedp.Navigate(url))
}

// Click clicks on the element that the CSS selector matches, once it is visible.
func (tb *Tab) Click(selector string) {
	tb.t.Helper()
	tb.Do(chromedp.Click(chromedp.CSS(selector)))
}

// ClickIn clicks on the element that selector matches in the shadow tree of the
// element that host matches.
func (tb *Tab) ClickIn(host, selector string) {
	tb.t.Helper()
	// A pointer moves before it clicks; controls may become visible on hover.
	Eval[any](tb, fmt.Sprintf("document.querySelector(%q).shadowRoot.firstElementChild.dispatchEvent(new PointerEvent('pointermove', {bubbles: true})), 1", host))
	tb.Do(chromedp.Click(chromedp.JSPath(fmt.Sprintf("document.querySelector(%q).shadowRoot.querySelector(%q)", host, selector))))
}

// Scheme sets the preferred colour scheme: light or dark.
func (tb *Tab) Scheme(scheme string) {
	tb.t.Helper()
	if _, err := chromedp.Call(tb.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
	}); err != nil {
		tb.t.Fatal(err)
	}
}

// Eval runs js, which may be a promise, and decodes its value.
func Eval[T any](tb *Tab, js string) T {
	tb.t.Helper()
	v, err := chromedp.Run(tb.ctx, chromedp.Evaluate[T](js, chromedp.EvalAwaitPromise))
	if err != nil {
		tb.t.Fatalf("%s: %v", js, err)
	}
	return v
}

// Until waits for js to become true.
func (tb *Tab) Until(js string) {
	tb.t.Helper()
	_, err := chromedp.Run(tb.ctx, chromedp.Poll[bool]("Boolean("+js+")", chromedp.WithPollingInterval(look), chromedp.WithPollingTimeout(patience)))
	if err != nil {
		seen, _ := chromedp.Run(tb.ctx, chromedp.Evaluate[string](`JSON.stringify(window.weir) + '\n' + document.body.innerText`))
		tb.t.Fatalf("%s did not come true: %v\nthe page:\n%s", js, err, seen)
	}
}

// Text is the text of the element that the CSS selector matches.
func (tb *Tab) Text(selector string) string {
	tb.t.Helper()
	return Eval[string](tb, fmt.Sprintf("document.querySelector(%q).textContent", selector))
}

// Shoot saves a picture of the whole page as name.png in the directory in the
// environment variable SCREENSHOTS, if that is set.
func (tb *Tab) Shoot(name string) {
	tb.t.Helper()
	tb.shoot(name, chromedp.FullScreenshot(100))
}

func (tb *Tab) shoot(name string, take chromedp.Action[[]byte]) {
	tb.t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	b, err := chromedp.Run(tb.ctx, take)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), b, 0o644)
	}
	if err != nil {
		tb.t.Fatal(err)
	}
}

// ShootAll saves the page in light mode, in dark mode and at the size of a
// phone, as Shoot does, and leaves it 1440 pixels wide.
func (tb *Tab) ShootAll(name string) {
	tb.t.Helper()
	if os.Getenv("SCREENSHOTS") == "" {
		return
	}
	tb.Shoot(name)
	tb.Scheme("dark")
	tb.Shoot(name + "-dark")
	tb.Scheme("light")
	tb.Do(chromedp.EmulateViewport(390, 1500))
	tb.Until("innerWidth === 390")
	Eval[any](tb, "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(1))))")
	tb.shoot(name+"-390", chromedp.CaptureScreenshot())
	tb.Do(chromedp.EmulateViewport(1440, 900))
}

// NoOverflow fails the test if the page is wider than the window.
func (tb *Tab) NoOverflow() {
	tb.t.Helper()
	if wide := Eval[int](tb, "document.documentElement.scrollWidth - innerWidth"); wide > 0 {
		tb.t.Errorf("the page is %d px wider than the window", wide)
	}
}

// Inject makes every page that the tab opens from now on run js first.
func (tb *Tab) Inject(js string) {
	tb.t.Helper()
	if _, err := chromedp.Call(tb.ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: js}); err != nil {
		tb.t.Fatal(err)
	}
}
