// Package acme runs an ACME server (RFC 8555) for tests: pebble, Let's
// Encrypt's own test server, which makes real challenges. It resolves every
// domain to 127.0.0.1.
package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/miekg/dns"

	"weir/testnet"
)

const (
	pebble = "github.com/letsencrypt/pebble/v2/cmd/pebble"
	// upTime is how long it may take to answer, after it was built.
	upTime = 30 * time.Second
	poll   = 20 * time.Millisecond
)

// Config says where a Server sends challenges, and what it issues.
type Config struct {
	Dir      string        // for its files
	TLSPort  int           // in place of 443
	HTTPPort int           // in place of 80; 0: a port without a listener
	Life     time.Duration // of certificates
}

// A Server is a process that issues certificates until Close.
type Server struct {
	URL    string // of its directory
	CAFile string // for its clients: the CA of its own https

	roots *x509.CertPool
	cmd   *exec.Cmd
	ended chan struct{}
	out   output
	names *dns.Server
	once  sync.Once
}

// Start builds pebble and starts it. ctx bounds only the start. The error says
// why it is not ready.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	binary := filepath.Join(cfg.Dir, "pebble")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, pebble).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build pebble: %w\n%s", err, out)
	}
	ca, err := testnet.OpenAuthority(cfg.Dir, time.Now())
	if err != nil {
		return nil, err
	}
	s := &Server{CAFile: filepath.Join(cfg.Dir, testnet.AuthorityFile), ended: make(chan struct{})}
	cert, key, err := ca.Issue(time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour), "127.0.0.1")
	if err != nil {
		return nil, err
	}
	certFile, keyFile := filepath.Join(cfg.Dir, "cert.pem"), filepath.Join(cfg.Dir, "key.pem")
	if err := errors.Join(os.WriteFile(certFile, cert, 0o600), os.WriteFile(keyFile, key, 0o600)); err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	if cfg.HTTPPort == 0 {
		cfg.HTTPPort = ports[2]
	}
	at, manage := fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
	s.URL = "https://" + at + "/dir"
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": at, "managementListenAddress": manage, "certificate": certFile, "privateKey": keyFile,
		"httpPort": cfg.HTTPPort, "tlsPort": cfg.TLSPort, "keyAlgorithm": "ecdsa",
		"retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles":   map[string]any{"default": map[string]any{"description": "for tests", "validityPeriod": int(cfg.Life.Seconds())}},
	}})
	if err != nil {
		return nil, err
	}
	configFile := filepath.Join(cfg.Dir, "pebble.json")
	if err := os.WriteFile(configFile, config, 0o600); err != nil {
		return nil, err
	}
	if err := s.serveNames(); err != nil {
		return nil, err
	}
	s.cmd = exec.Command(binary, "-config", configFile, "-dnsserver", s.names.Listener.Addr().String())
	s.cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		_ = s.names.Shutdown()
		return nil, err
	}
	go func() {
		defer close(s.ended)
		_ = s.cmd.Wait() // killed by Close
	}()
	if err := s.await(ctx, ca, manage); err != nil {
		s.Close()
		return nil, fmt.Errorf("pebble: %w\n%s", err, s.Log())
	}
	return s, nil
}

// await waits until the server serves the root of its certificates.
func (s *Server) await(ctx context.Context, ca *testnet.Authority, manage string) error {
	ctx, cancel := context.WithTimeout(ctx, upTime)
	defer cancel()
	own := x509.NewCertPool()
	own.AddCert(ca.Cert())
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: own}}}
	for {
		text, err := get(ctx, hc, "https://"+manage+"/roots/0")
		if err == nil {
			_, err = get(ctx, hc, s.URL)
		}
		if err == nil {
			s.roots = x509.NewCertPool()
			if !s.roots.AppendCertsFromPEM(text) {
				return errors.New("it gives no root")
			}
			return nil
		}
		select {
		case <-time.After(poll):
		case <-s.ended:
			return errors.New("it has ended")
		case <-ctx.Done():
			return err
		}
	}
}

func get(ctx context.Context, hc *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return text, err
}

// serveNames runs a DNS server that resolves every name to 127.0.0.1.
func (s *Server) serveNames() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.names = &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(r)
		for _, q := range r.Question {
			if q.Qtype == dns.TypeA {
				answer.Answer = append(answer.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)})
			}
		}
		_ = w.WriteMsg(answer) // a client that retries may get the answer
	})}
	ready := make(chan struct{})
	s.names.NotifyStartedFunc = func() { close(ready) }
	ended := make(chan error, 1)
	go func() { ended <- s.names.ActivateAndServe() }()
	select {
	case <-ready:
		return nil
	case err := <-ended:
		return err
	}
}

// Roots are the roots of its certificates.
func (s *Server) Roots() *x509.CertPool { return s.roots }

// Log is its output so far.
func (s *Server) Log() string { return s.out.String() }

// Close kills it. It may be called more than once.
func (s *Server) Close() {
	s.once.Do(func() {
		_ = s.cmd.Process.Kill()
		<-s.ended
		_ = s.names.Shutdown()
	})
}

// freePorts returns n ports that were free just now.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// output collects a process's output, and is safe for concurrent use.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
