package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/cmd/weir/term"
	"weir/sfu/problem"
)

const (
	// MaxOutput bounds the output of a hook, in bytes. A hook with more is killed.
	MaxOutput = 64 << 10
	// hookTail is how many bytes of output are logged when the hook has failed.
	hookTail = 2 << 10
	// hookGrace is how long a hook's pipes may stay open after it was killed.
	hookGrace = 500 * time.Millisecond
	// DefaultTimeout bounds one run of a hook.
	DefaultTimeout = 30 * time.Second
)

// errHookOutput means that a hook printed more than MaxOutput.
var errHookOutput = fmt.Errorf("it printed more than %d bytes", MaxOutput)

// A Hook is a command of the operator's, or a URL, that starts or stops a
// server. Its input is JSON: on standard input, or as the body of a POST. The
// zero value is no hook.
type Hook struct {
	command string // for sh -c
	URL     string // http or https
	timeout time.Duration
	log     *slog.Logger
}

// Input is the JSON input. Of a release, Need and Join are empty.
type Input struct {
	Action  string  `json:"action"` // "provision" or "release"
	Region  string  `json:"region"`
	Need    *Need   `json:"need,omitempty"`
	Reason  string  `json:"reason"`
	Join    string  `json:"join,omitempty"` // for weir node --join
	Request string  `json:"request"`        // the same on a retry
	Network string  `json:"network"`
	PeerID  peer.ID `json:"peer_id,omitempty"` // of the node to release
}

// Need is the need that no node has room for.
type Need struct {
	Purpose capacity.Purpose `json:"purpose"`
	Uplink  int64            `json:"uplink"`  // bit/s
	Packets int64            `json:"packets"` // packets/s
	Stream  string           `json:"stream"`
}

// New returns the hook set by the flags --WHAT-command and --WHAT-url, of which
// at most one may be given. Each run may take timeout. The error names the wrong
// flag.
func New(what, command, address string, timeout time.Duration, log *slog.Logger) (Hook, error) {
	h := Hook{command, address, timeout, log}
	if command != "" && address != "" {
		return h, fmt.Errorf("--%s-command and --%s-url: give one of them", what, what)
	}
	if u, err := url.Parse(address); address != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return h, fmt.Errorf("--%s-url %s: want http://… or https://…", what, address)
	}
	if timeout <= 0 || timeout > 10*time.Minute {
		return h, fmt.Errorf("--hook-timeout %v: want more than 0 and at most 10m", timeout)
	}
	return h, nil
}

// Given reports whether there is a hook.
func (h Hook) Given() bool { return h.command != "" || h.URL != "" }

// Run runs the hook, for its timeout at most. Its output is logged if it fails. The
// error never contains the output: clients may see it.
func (h Hook) Run(ctx context.Context, in Input) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, h.timeout, fmt.Errorf("it has not ended within %v", h.timeout))
	defer cancel()
	out := &boundedOutput{}
	if h.command != "" {
		err = h.exec(ctx, body, nil, out)
	} else {
		err = h.post(ctx, body, out)
	}
	if err != nil {
		h.log.Warn("hook failed", "action", in.Action, "region", in.Region, "request", in.Request, "err", err, "output", out.tail())
		return err
	}
	h.log.Debug("hook done", "action", in.Action, "region", in.Region, "request", in.Request, "output", out.tail())
	return nil
}

// exec runs the command in a process group of its own, which is killed as a
// whole when ctx ends. A nil environment means that of this process.
func (h Hook) exec(ctx context.Context, stdin []byte, env []string, out *boundedOutput) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out.full = func() { cancel(errHookOutput) }
	cmd := exec.CommandContext(ctx, "sh", "-c", h.command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = bytes.NewReader(stdin), out, out, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = hookGrace
	err := cmd.Run()
	switch {
	case errors.Is(context.Cause(ctx), errHookOutput):
		return errHookOutput
	case cmd.ProcessState != nil && cmd.ProcessState.Success():
		return nil // even if a server that it started holds its pipes
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

func (h Hook) post(ctx context.Context, body []byte, out *boundedOutput) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true // one a minute at most: no connection is kept
	resp, err := http.DefaultClient.Do(req)
	if err == nil {
		defer resp.Body.Close()
		_, err = io.Copy(out, resp.Body)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return problem.WithoutURL(err)
	case out.over():
		return errHookOutput
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("the URL answered %s", resp.Status)
	}
	return nil
}

// A boundedOutput keeps up to MaxOutput bytes of what is written.
type boundedOutput struct {
	full func() // called when there is more; nil: writing fails

	mu   sync.Mutex
	buf  []byte
	more bool
}

func (o *boundedOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	o.buf = append(o.buf, p[:min(len(p), MaxOutput-len(o.buf))]...)
	first := !o.more && len(o.buf) == MaxOutput
	o.more = o.more || first
	o.mu.Unlock()
	if first && o.full != nil {
		o.full()
	}
	if o.full == nil && o.over() {
		return 0, errHookOutput
	}
	return len(p), nil
}

func (o *boundedOutput) over() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.more
}

// tail is the end of the output, as text.
func (o *boundedOutput) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '.'
	}, strings.ToValidUTF8(string(o.buf[max(0, len(o.buf)-hookTail):]), "."))
	return strings.TrimSpace(withoutKeys(text, os.Environ()))
}

// secretWord matches tokens and keys in any text: RFC 6750's, JSON web tokens,
// and keys of webhooks.
var secretWord = regexp.MustCompile(`(?i:\b(bearer|basic)\s+)[^\s"']+|\beyJ[\w-]+\.[\w-]+\.[\w-]*|\bwhsec_[\w+/=-]+`)

// secretName matches the usual names of variables with secrets.
var secretName = regexp.MustCompile(`(?i)(token|secret|passw|key|credential)`)

// withoutKeys masks secrets in a hook's output: text that looks like one, and
// the values of variables in env with such names: a hook run with sh -x prints
// them.
func withoutKeys(text string, env []string) string {
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		if len(value) >= 8 && secretName.MatchString(name) {
			text = strings.ReplaceAll(text, value, "…")
		}
	}
	return term.WithoutSecrets(secretWord.ReplaceAllString(text, "…"))
}
