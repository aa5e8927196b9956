package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

// Firefox is one headless browser with an empty profile, a fake camera and
// microphone, and ICE on loopback. It is controlled by WebDriver BiDi, one
// request at a time. The kernel kills it if this process dies.
type Firefox struct {
	cmd     *exec.Cmd
	profile string
	ended   chan struct{} // closed once the process has ended and its output has been read

	mu   sync.Mutex
	conn *websocket.Conn
	id   int
}

// firefoxPrefs allow pages to use the fake devices without a prompt, and keep
// the browser from making requests of its own.
const firefoxPrefs = `
user_pref("media.navigator.streams.fake", true);
user_pref("media.navigator.permission.disabled", true);
user_pref("media.peerconnection.ice.loopback", true);
user_pref("media.peerconnection.ice.obfuscate_host_addresses", false);
user_pref("media.autoplay.default", 0);
user_pref("media.autoplay.blocking_policy", 0);
user_pref("media.gmp-manager.updateEnabled", false);
user_pref("media.gmp-provider.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.dns.disablePrefetch", true);
user_pref("browser.safebrowsing.malware.enabled", false);
user_pref("browser.safebrowsing.phishing.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("browser.topsites.contile.enabled", false);
user_pref("browser.newtabpage.enabled", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("toolkit.telemetry.enabled", false);
user_pref("app.normandy.enabled", false);
user_pref("app.update.enabled", false);
user_pref("extensions.systemAddon.update.enabled", false);
user_pref("services.settings.server", "data:,#");
`

// firefoxTimeout bounds the start, the end, and each request.
const firefoxTimeout = time.Minute

var listening = regexp.MustCompile(`WebDriver BiDi listening on (ws://\S+)`)

// StartFirefox starts a Firefox, which must be closed. The error wraps
// [ErrMissing] if none is installed.
func StartFirefox() (_ *Firefox, err error) {
	bin, err := exec.LookPath("firefox-esr")
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrMissing, err)
	}
	f := &Firefox{ended: make(chan struct{})}
	if f.profile, err = os.MkdirTemp("", "weir-firefox"); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(f.profile, "user.js"), []byte(firefoxPrefs), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(f.profile))
	}
	f.cmd = exec.Command(bin, "--headless", "--no-remote", "--profile", f.profile, "--remote-debugging-port", "0", "about:blank")
	f.cmd.Env = append(os.Environ(), "HOME="+f.profile, "MOZ_CRASHREPORTER_DISABLE=1")
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	output, err := f.cmd.StderrPipe()
	if err == nil {
		err = f.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", bin, err), os.RemoveAll(f.profile))
	}
	url := make(chan string, 1)
	go func() {
		defer close(f.ended)
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case url <- m[1]:
				default:
				}
			}
		}
		_ = f.cmd.Wait()
	}()
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), firefoxTimeout)
	defer cancel()
	select {
	case u := <-url:
		if f.conn, _, err = websocket.DefaultDialer.DialContext(ctx, strings.TrimRight(u, "/")+"/session", nil); err != nil {
			return nil, fmt.Errorf("reach firefox: %w", err)
		}
	case <-f.ended:
		return nil, errors.New("firefox ended before it could be spoken to")
	case <-ctx.Done():
		return nil, errors.New("firefox says nothing")
	}
	_, err = f.call("session.new", map[string]any{"capabilities": map[string]any{}})
	return f, err
}

// call makes one request and returns its result.
func (f *Firefox) call(method string, params any) (json.RawMessage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.id++
	deadline := time.Now().Add(firefoxTimeout)
	_ = f.conn.SetWriteDeadline(deadline)
	_ = f.conn.SetReadDeadline(deadline)
	if err := f.conn.WriteJSON(map[string]any{"id": f.id, "method": method, "params": params}); err != nil {
		return nil, fmt.Errorf("firefox, %s: %w", method, err)
	}
	for {
		var reply struct {
			ID      int             `json:"id"`
			Error   string          `json:"error"`
			Message string          `json:"message"`
			Result  json.RawMessage `json:"result"`
		}
		if err := f.conn.ReadJSON(&reply); err != nil {
			return nil, fmt.Errorf("firefox, %s: %w", method, err)
		}
		if reply.ID != f.id {
			continue // an event
		}
		if reply.Error != "" {
			return nil, fmt.Errorf("firefox, %s: %s: %s", method, reply.Error, reply.Message)
		}
		return reply.Result, nil
	}
}

// A Page is one tab of a Firefox.
type Page struct {
	f       *Firefox
	context string
}

// Open opens url in a new tab and waits until it is loaded.
func (f *Firefox) Open(url string) (*Page, error) {
	b, err := f.call("browsingContext.create", map[string]any{"type": "tab"})
	if err != nil {
		return nil, err
	}
	var created struct {
		Context string `json:"context"`
	}
	if err := json.Unmarshal(b, &created); err != nil {
		return nil, err
	}
	_, err = f.call("browsingContext.navigate", map[string]any{"context": created.Context, "url": url, "wait": "complete"})
	return &Page{f, created.Context}, err
}

// Eval evaluates a JavaScript expression, awaits it if it is a promise, and
// decodes its value, which must be valid in JSON, into v.
func (p *Page) Eval(expression string, v any) error {
	b, err := p.f.call("script.evaluate", map[string]any{
		"expression": "(async () => JSON.stringify(await (" + expression + ")) ?? 'null')()",
		"target":     map[string]any{"context": p.context}, "awaitPromise": true, "userActivation": true,
	})
	if err != nil {
		return err
	}
	var reply struct {
		Type   string `json:"type"`
		Result struct {
			Value string `json:"value"`
		} `json:"result"`
		Exception struct {
			Text string `json:"text"`
		} `json:"exceptionDetails"`
	}
	if err := json.Unmarshal(b, &reply); err != nil {
		return err
	}
	if reply.Type != "success" {
		return fmt.Errorf("firefox, %s: %s", expression, reply.Exception.Text)
	}
	return json.Unmarshal([]byte(reply.Result.Value), v)
}

// Close closes the tab, as a user would.
func (p *Page) Close() error {
	_, err := p.f.call("browsingContext.close", map[string]any{"context": p.context})
	return err
}

// Close ends the browser: once it has returned, no process of it is left.
func (f *Firefox) Close() error {
	if f.conn != nil {
		_, _ = f.call("browser.close", map[string]any{})
		_ = f.conn.Close()
	} else {
		_ = syscall.Kill(-f.cmd.Process.Pid, syscall.SIGKILL)
	}
	select {
	case <-f.ended:
	case <-time.After(closeTimeout):
		_ = syscall.Kill(-f.cmd.Process.Pid, syscall.SIGKILL)
		<-f.ended
	}
	return os.RemoveAll(f.profile)
}
