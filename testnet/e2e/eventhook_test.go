package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"weir/capacity/event"
)

// A receiver accepts webhooks, and records those with a valid signature.
type receiver struct {
	*httptest.Server
	key []byte

	mu     sync.Mutex
	answer int // status of the next answers; 0: it hangs
	got    []delivery
	bad    []string
}

type delivery struct {
	ID  string `json:"id"`
	URL string `json:"node_url"`
	event.Event
}

func newReceiver(t *testing.T, key string) *receiver {
	r := &receiver{key: []byte(key), answer: http.StatusOK}
	r.Server = httptest.NewServer(http.HandlerFunc(r.take))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) take(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	id, at := req.Header.Get("Webhook-Id"), req.Header.Get("Webhook-Timestamp")
	mac := hmac.New(sha256.New, r.key)
	_, _ = io.WriteString(mac, id+"."+at+"."+string(body))
	var d delivery
	seconds, err := strconv.ParseInt(at, 10, 64)
	r.mu.Lock()
	answer := r.answer
	switch {
	case json.Unmarshal(body, &d) != nil, d.ID != id:
		r.bad = append(r.bad, "body: "+string(body))
	case req.Header.Get("Webhook-Signature") != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)):
		r.bad = append(r.bad, "signature of "+id)
	case err != nil, time.Since(time.Unix(seconds, 0)) > 5*time.Minute:
		r.bad = append(r.bad, "time "+at)
	case answer == http.StatusOK:
		r.got = append(r.got, d)
	}
	r.mu.Unlock()
	if answer == 0 {
		<-req.Context().Done()
		return
	}
	w.WriteHeader(answer)
}

func (r *receiver) answers(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = status
}

// of are the kinds of the received events of a stream, in order.
func (r *receiver) of(stream string) (kinds []event.Kind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.got {
		if d.Stream == stream {
			kinds = append(kinds, d.Kind)
		}
	}
	return kinds
}

// A webhook gets the events of a stream, signed and in order, also those from
// while it was down, and those from when the node ends; a hanging webhook does
// not affect media.
func TestWebhook(t *testing.T) {
	// The key is made as in the guide.
	_, line, _ := strings.Cut(operating(t, "Hooks and webhooks"), "\nopenssl ")
	line, _, _ = strings.Cut(line, "\n")
	making := exec.Command("sh", "-c", "openssl "+line)
	making.Dir = t.TempDir()
	if out, err := making.CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v: %s", line, err, out)
	}
	key := filepath.Join(making.Dir, "weir-event.key")
	secret, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	hooked := newReceiver(t, strings.TrimSpace(string(secret)))
	w := up(t, 2, only(1, "--event-url", hooked.URL, "--event-key", key, "--event-kinds", "stream,session", "--hook-timeout", "1s", "--stop-timeout", "0s"))
	n := w.n(1)
	p := publish(t, n.whip("demo"))
	eventually(t, "the stream's start is told", func() bool { return slices.Contains(hooked.of("demo"), event.StreamStarted) })
	hooked.answers(0)
	v := view(t, n.whep("demo"))
	flows(t, v)
	eventually(t, "a delivery is tried again", func() bool { return n.metric(t, "weir_event_delivery_retries_total") > 0 })
	flows(t, v)
	if s := v.Stats(); s.Lost > 0 && kernelDrops(t) == 0 {
		t.Errorf("the viewer lost %d packets while the receiver hung", s.Lost)
	}
	if got := n.metric(t, "weir_event_queue_length"); got < 1 {
		t.Errorf("%v events wait", got)
	}
	hooked.answers(http.StatusServiceUnavailable)
	eventually(t, "a refusal is tried again", func() bool { return n.metric(t, "weir_event_delivery_retries_total") > 1 })
	hooked.answers(http.StatusOK)
	eventually(t, "the viewer is told of", func() bool { return len(hooked.of("demo")) == 3 })
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "its end is told", func() bool { return len(hooked.of("demo")) == 4 })
	// The node counts a delivery once it has read the answer.
	eventually(t, "four deliveries are counted", func() bool { return n.metric(t, `weir_event_deliveries_total{outcome="delivered"}`) == 4 })

	if err := syscall.Kill(n.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	want := []event.Kind{event.SessionOpened, event.StreamStarted, event.SessionOpened, event.SessionClosed, event.StreamEnded, event.SessionClosed}
	eventually(t, "the end is told", func() bool { return len(hooked.of("demo")) >= len(want) })
	if got := hooked.of("demo"); !slices.Equal(got, want) {
		t.Errorf("told of %v, want %v", got, want)
	}
	hooked.mu.Lock()
	defer hooked.mu.Unlock()
	if len(hooked.bad) > 0 {
		t.Errorf("not as it should be: %q", hooked.bad)
	}
	if d := hooked.got[0]; d.URL != n.HTTP || d.Role != "publisher" {
		t.Errorf("the first was %+v", d)
	}
	p.stop()
}

// The guide's example records streams, with sound, as printed.
func TestRecordingHook(t *testing.T) {
	for _, tool := range []string{"ffmpeg", "ffprobe"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("there is no " + tool + ": testnet/deps.sh ffmpeg")
		}
	}
	script, err := filepath.Abs("../../cmd/weir/hooks/record.sh")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	flags := flagsOf(t, operating(t, "Hooks and webhooks"), 0)
	if line := strings.Join(flags, " "); !strings.Contains(string(b), "weir node … "+line+"\n") || !strings.HasSuffix(line, "cmd/weir/hooks/record.sh") {
		t.Errorf("the guide shows %s, and the script another line", line)
	}
	flags[len(flags)-1] = script
	dir := filepath.Join(t.TempDir(), "kept")
	t.Setenv("RECORDINGS", dir)
	t.Setenv("WEIR", weir)
	w := up(t, 1, only(1, flags...))
	n := w.n(1)
	p := publish(t, n.whip("room/demo"))
	recording := func(pattern string) string {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != 1 {
			return ""
		}
		return found[0]
	}
	eventually(t, "it records", func() bool { return n.status(t).Viewers == 1 })
	eventually(t, "video and audio are written", func() bool {
		for _, name := range []string{"video.ivf", "audio.ogg"} {
			info, err := os.Stat(filepath.Join(recording("room_demo-*.part"), name))
			if err != nil || info.Size() < 10_000 {
				return false
			}
		}
		return true
	})
	p.stop()
	eventually(t, "the recording is whole", func() bool { return recording("room_demo-*.mkv") != "" && recording("*.part") == "" })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ffprobe", "-v", "error", "-of", "json", "-count_packets",
		"-show_entries", "stream=codec_name,nb_read_packets:format=duration", recording("*.mkv")).CombinedOutput()
	if err != nil {
		t.Fatalf("ffprobe: %v: %s", err, out)
	}
	var info struct {
		Streams []struct {
			Codec   string `json:"codec_name"`
			Packets string `json:"nb_read_packets"`
		}
		Format struct{ Duration string }
	}
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	length, _ := strconv.ParseFloat(info.Format.Duration, 64)
	if len(info.Streams) != 2 || info.Streams[0].Codec != "vp8" || info.Streams[1].Codec != "opus" || length < 0.5 {
		t.Errorf("the recording is %s", out)
	}
	if n.metric(t, `weir_event_deliveries_total{outcome="delivered"}`) != 1 {
		t.Error("the hook has not ended")
	}
}
