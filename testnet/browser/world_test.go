package browser

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"weir/testnet"
)

// The nodes of all tests. nodeFull has room for only fullSessions sessions.
const (
	nodeA, nodeB, nodeFull = "n1", "n2", "n3"
	fullSessions           = 2
)

// world is shared by all tests: starting it takes longer than any of them.
var world struct {
	once sync.Once
	err  error

	dir      string
	weir     string // the binary
	net      *testnet.Network
	chromium *Chromium
}

func TestMain(m *testing.M) {
	code := m.Run()
	if err := tearDown(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// setUp starts the world if no test has yet.
func setUp(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser and three nodes are too slow for -short")
	}
	world.once.Do(func() { world.err = bringUp() })
	if world.err != nil {
		t.Fatal(world.err)
	}
}

func bringUp() (err error) {
	if err := readSources(); err != nil {
		return err
	}
	if world.chromium, err = Start(); err != nil {
		return err
	}
	if world.dir, err = os.MkdirTemp("", "weir-browser"); err != nil {
		return err
	}
	world.weir = filepath.Join(world.dir, "weir")
	if out, err := exec.Command("go", "build", "-o", world.weir, "weir/cmd/weir").CombinedOutput(); err != nil {
		return fmt.Errorf("build weir: %w\n%s", err, out)
	}
	world.net, err = testnet.Up(context.Background(), testnet.Config{
		Dir: filepath.Join(world.dir, "net"), N: 3, Regions: 3, Binary: world.weir,
		NodeFlags: func(i int) []string {
			if fmt.Sprintf("n%d", i) != nodeFull {
				return nil
			}
			return []string{"--session-limit", fmt.Sprint(fullSessions), "--embed-origins", "https://www.example.org"}
		},
	})
	return err
}

// readSources reads all of weir's source: go test uses cached results while no
// file that the test has opened has changed, and it cannot know that the nodes
// are built from these.
func readSources() error {
	return filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		if ext := filepath.Ext(path); err == nil && slices.Contains([]string{".go", ".js", ".css", ".html", ".mod"}, ext) {
			_, err = os.Stat(path)
		}
		return err
	})
}

// tearDown ends all processes and checks for leaked goroutines.
func tearDown() error {
	var errs []error
	if world.chromium != nil {
		errs = append(errs, world.chromium.Close())
	}
	if world.net != nil {
		errs = append(errs, world.net.Close())
	}
	if world.dir != "" {
		errs = append(errs, os.RemoveAll(world.dir))
	}
	return errors.Join(append(errs, goleak.Find())...)
}

// spy makes a page's connections available to tests, so that the browser's view
// can be compared with the page's own.
const spy = `{
	const Real = RTCPeerConnection;
	window.connections = [];
	window.RTCPeerConnection = class extends Real {
		constructor(...args) {
			super(...args);
			window.connections.push(this);
		}
	};
}`

// inPlayer is the shadow root of a page's player.
const inPlayer = "document.querySelector('#player').shadowRoot"

// notThere is the browser's message about a request for a stream that is not live.
const notThere = "status of 409"

func open(t *testing.T, c *Chromium) *Tab {
	t.Helper()
	tb := c.Open(t, 1440, 900)
	tb.Inject(spy)
	return tb
}

// A source is the media source of the publish page.
type source struct {
	kind  string // camera or pattern
	codec string // "": the page's own choice
}

// publish opens the publish page of a node and starts, and returns once the
// stream is live.
func publish(t *testing.T, c *Chromium, node, stream string, s source) *Tab {
	t.Helper()
	tb := open(t, c)
	tb.Go(world.net.Node(node).HTTP + "/publish?stream=" + url.QueryEscape(stream))
	tb.Click("#source-" + s.kind)
	if s.codec != "" {
		Eval[any](tb, fmt.Sprintf(`(() => { const s = document.querySelector('#codec'); s.value = %q; s.dispatchEvent(new Event('change')); })()`, s.codec))
	}
	tb.Click("#start")
	tb.Until("window.weir.state === 'live' && window.weir.framesEncoded > 0 && window.weir.bytesSent > 0")
	return tb
}

// play opens the play page of a node, and returns once a picture is shown.
func play(t *testing.T, c *Chromium, node, stream string) *Tab {
	t.Helper()
	tb := open(t, c)
	tb.Go(world.net.Node(node).HTTP + "/play/" + stream)
	tb.Until("window.weir.state === 'live' && window.weir.framesDecoded > 0 && window.weir.firstFrame > 0")
	return tb
}

// picture is the content of a player at one moment.
type picture struct {
	Decoded       int   // frames so far
	Width, Height int   // of the video
	Number        int   // of the test pattern's frame: the 16 squares at the bottom
	Luma          []int // of 32 × 18 points, 0 to 255
}

const takePicture = `(() => {
	const video = document.querySelector('#player').video;
	const canvas = document.createElement('canvas');
	const g = canvas.getContext('2d', {willReadFrequently: true});
	const [width, height] = [video.videoWidth, video.videoHeight];
	canvas.width = width; canvas.height = height;
	g.drawImage(video, 0, 0);
	let number = 0;
	for (let i = 0; i < 16; i++) number = number * 2 + (g.getImageData((i + 0.5) * width / 16, height * 0.94, 1, 1).data[1] > 127 ? 1 : 0);
	canvas.width = 32; canvas.height = 18;
	g.drawImage(video, 0, 0, 32, 18);
	const rgba = g.getImageData(0, 0, 32, 18).data;
	const luma = Array.from({length: 32 * 18}, (_, i) => Math.round(0.2126 * rgba[4 * i] + 0.7152 * rgba[4 * i + 1] + 0.0722 * rgba[4 * i + 2]));
	return {Decoded: window.weir.framesDecoded, Width: width, Height: height, Number: number, Luma: luma};
})()`

// light returns the mean and the spread of the luma.
func (p picture) light() (mean, spread int) {
	for _, v := range p.Luma {
		mean += v
	}
	mean /= len(p.Luma)
	return mean, slices.Max(p.Luma) - slices.Min(p.Luma)
}

// changed counts the points that differ clearly from those of q.
func (p picture) changed(q picture) int {
	n := 0
	for i := range p.Luma {
		if d := p.Luma[i] - q.Luma[i]; d > 24 || d < -24 {
			n++
		}
	}
	return n
}

// moves fails the test unless the player tb continually decodes frames of a
// picture that is not black and changes; if pattern is set, the frame numbers
// in the picture must rise.
func moves(t *testing.T, tb *Tab, pattern bool) {
	t.Helper()
	first := Eval[picture](tb, takePicture)
	// The publishing browser sends a smaller picture of the same aspect ratio
	// if its encoder is too slow.
	if w, h := first.Width, first.Height; w*360 != h*640 || w > 640 || w < 160 {
		t.Errorf("the picture is %d × %d, want 640 × 360 or the same shape down to a quarter", w, h)
	}
	if mean, spread := first.light(); mean < 30 || mean > 225 || spread < 60 {
		t.Errorf("the picture's luma is %d with a spread of %d: black, white or blank", mean, spread)
	}
	last, most := first, 0
	eventually(t, "20 more frames and a picture that moves", func() bool {
		last = Eval[picture](tb, takePicture)
		if pattern && last.Number < first.Number {
			t.Fatalf("frame %d of the pattern comes after %d", last.Number, first.Number)
		}
		most = max(most, last.changed(first))
		return last.Decoded >= first.Decoded+20 && most > 0
	})
	// A busy machine may drop frames, on either side, so the pattern's own
	// count is compared loosely.
	if counted, decoded := last.Number-first.Number, last.Decoded-first.Decoded; pattern && (counted < decoded/2 || counted > 10*decoded+30) {
		t.Errorf("the pattern counted %d frames while %d were decoded", counted, decoded)
	}
}

// eventually polls ok until it is true or patience ends.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	within(t, patience, what, ok)
}

func within(t *testing.T, most time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for deadline := time.Now().Add(most); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", most, what)
		}
	}
}

// link is an entry of /api/v1/links.
type link struct {
	Peer      peer.ID  `json:"peer"`
	PullsIn   []string `json:"pulls_in"`
	PullsOut  []string `json:"pulls_out"`
	PacketsIn int64    `json:"packets_in"`
}

// pull returns the link over which the node pulls the stream, and the number of
// such links.
func pull(t *testing.T, node, stream string) (found link, count int) {
	t.Helper()
	for _, l := range get[[]link](t, node, "/links") {
		for _, s := range l.PullsIn {
			if s == stream {
				found, count = l, count+1
			}
		}
	}
	return found, count
}

// session is an entry of /api/v1/sessions.
type session struct {
	Kind, Stream, State string
}

// sessions counts the node's sessions of a kind with the stream.
func sessions(t *testing.T, node, kind, stream string) int {
	t.Helper()
	n := 0
	for _, s := range get[[]session](t, node, "/sessions") {
		if s.Kind == kind && s.Stream == stream {
			n++
		}
	}
	return n
}

// get asks a node's admin API.
func get[T any](t *testing.T, node, path string) T {
	t.Helper()
	var v T
	if err := world.net.Node(node).Get(t.Context(), path, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// command runs weir against a node's admin API and returns what it prints.
func command(t *testing.T, node string, args ...string) (string, error) {
	t.Helper()
	args = append(slices.Clone(args), "--admin", world.net.Node(node).Admin)
	out, err := exec.CommandContext(t.Context(), world.weir, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// nodeAt is the name of the node that serves the page's session.
func nodeAt(t *testing.T, tb *Tab) string {
	t.Helper()
	at := Eval[string](tb, "window.weir.sessionURL")
	for _, n := range world.net.Nodes() {
		if strings.HasPrefix(at, n.HTTP+"/") {
			return n.Name
		}
	}
	t.Fatalf("no node serves the session %q", at)
	return ""
}
