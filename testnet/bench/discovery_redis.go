package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"weir/capacity"
	"weir/capacity/task"
	"weir/testnet/lab"
)

const (
	redisKeys = "weir:"
	// redisItself is the server's index in redisStore.traffic.
	redisItself = 1 << 30
	// redisPoll is how often a node checks whether it has published: what it
	// would send to holders goes to redis, at the same times.
	redisPoll = 25 * time.Millisecond
	// tcpHeader is the size of the IPv4 and TCP headers with time stamps, in
	// bytes. Redis uses TCP over loopback here, so packets are not seen: one is
	// modelled per write, and half of one for its acknowledgement.
	tcpHeader = 52
	// redisStart is how long redis-server may take to answer.
	redisStart = 5 * time.Second
)

// readAll returns every record in one round trip: the minimum for a seeker with
// a database.
var readAll = redis.NewScript(`
local keys = redis.call('KEYS', ARGV[1])
if #keys == 0 then return {} end
return redis.call('MGET', unpack(keys))`)

// findRedis returns the path of a redis-server.
func findRedis(path string) (string, error) {
	if path == "" {
		path = "redis-server"
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return "", fmt.Errorf("mode redis needs redis-server (Debian: apt-get install redis-server, or make bench-discovery, which does it); or leave it out with --modes: %w", err)
	}
	return found, nil
}

// A redisStore is a real redis-server on loopback. Every node reaches it over a
// connection of its own with the delay to the server's place on the map. Close
// it after use.
type redisStore struct {
	process *exec.Cmd
	exited  chan struct{}
	at      lab.Place
	addr    string
	lines   map[int]*redisLine // by node

	cancel context.CancelFunc
	wg     sync.WaitGroup // writers
}

// A redisLine is one node's access.
type redisLine struct {
	client        *redis.Client
	payload, wire atomic.Int64
	wg            sync.WaitGroup // goroutines that carry its connections' bytes
}

// startRedis starts a server without persistence, and has every node of l write
// its record to it whenever that changes.
func startRedis(ctx context.Context, path string, l *lab.Lab) (*redisStore, error) {
	logging.Disable() // failures show as failed selections
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "weir-redis-")
	if err != nil {
		return nil, err
	}
	var output bytes.Buffer
	cmd := exec.Command(path, "--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", dir, "--daemonize", "no", "--loglevel", "warning")
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start redis-server: %w", err), os.RemoveAll(dir))
	}
	s := &redisStore{process: cmd, exited: make(chan struct{}), at: l.Map.Centre(0), addr: addr, lines: make(map[int]*redisLine)}
	go func() { // until the process has ended, which close waits for
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
		close(s.exited)
	}()
	if err := s.await(ctx); err != nil {
		err = errors.Join(err, s.close())
		return nil, fmt.Errorf("redis-server: %w: %s", err, bytes.TrimSpace(output.Bytes())) // it has ended, so output has no writer
	}
	ctx, s.cancel = context.WithCancel(ctx)
	for _, n := range l.Nodes() {
		line := &redisLine{}
		delay := n.At.OneWay(s.at)
		line.client = redis.NewClient(&redis.Options{
			Addr: addr, Protocol: 2, DisableIdentity: true, MaxRetries: -1, MinIdleConns: 1, DialerRetries: 1,
			DialTimeout: time.Second, ReadTimeout: 2 * time.Second, WriteTimeout: time.Second, ContextTimeoutEnabled: true,
			Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
				return dialSlow(ctx, network, addr, delay, line)
			},
		})
		s.lines[n.Index] = line
		s.wg.Go(func() { s.write(ctx, n, line.client) })
	}
	return s, nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// await waits until the server answers.
func (s *redisStore) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisStart)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", s.addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-s.exited:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return err
		}
	}
}

// write puts n's record into redis each time that n publishes.
func (s *redisStore) write(ctx context.Context, n *lab.Node, client *redis.Client) {
	tick := time.NewTicker(redisPoll)
	defer tick.Stop()
	var last []byte
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		own, err := n.Prober.Fetch(ctx, n.ID())
		if err != nil || len(own) == 0 || bytes.Equal(own[0], last) || n.Dead() {
			continue
		}
		// The next poll repeats a failed write.
		if client.Set(ctx, redisKeys+string(n.ID()), own[0], capacity.DefaultTTL).Err() == nil {
			last = own[0]
		}
	}
}

// read returns all records, and the cost of request and answer, in bytes.
func (s *redisStore) read(ctx context.Context, n *lab.Node) (sealed [][]byte, cost int64, err error) {
	args := []string{redisKeys + "*"}
	reply, err := readAll.EvalSha(ctx, s.lines[n.Index].client, nil, args[0]).StringSlice()
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		reply, err = readAll.Eval(ctx, s.lines[n.Index].client, nil, args[0]).StringSlice()
	}
	cost = respSize("evalsha", readAll.Hash(), "0", args[0])
	if err != nil {
		return nil, cost, err
	}
	for _, r := range reply {
		sealed = append(sealed, []byte(r))
	}
	return sealed, cost + respSize(reply...), nil
}

// respSize is the length of an array of strings in Redis's protocol.
func respSize(parts ...string) int64 {
	size := 1 + len(strconv.Itoa(len(parts))) + 2
	for _, p := range parts {
		size += 1 + len(strconv.Itoa(len(p))) + 2 + len(p) + 2
	}
	return int64(size)
}

// traffic is the traffic of node's connections so far, or of all of them for
// redisItself: payload, and with IP and TCP headers.
func (s *redisStore) traffic(node int) (payload, wire float64) {
	for i, line := range s.lines {
		if node == i || node == redisItself {
			payload += float64(line.payload.Load())
			wire += float64(line.wire.Load())
		}
	}
	return payload, wire
}

// kill ends the server as if its machine had died.
func (s *redisStore) kill() {
	_ = s.process.Process.Kill() // it may have ended already
	<-s.exited
}

func (s *redisStore) close() error {
	if s.cancel != nil {
		s.cancel()
	}
	s.wg.Wait()
	var errs []error
	for _, line := range s.lines {
		errs = append(errs, line.client.Close())
	}
	s.kill()
	for _, line := range s.lines {
		line.wg.Wait()
	}
	return errors.Join(errs...)
}

// A slowConn delays the bytes of either direction, and counts them.
type slowConn struct {
	net.Conn
	out, in *delayLine
	line    *redisLine
	rest    []byte // received and not yet read; owned by the reader
}

// dialSlow connects, which takes a round trip.
func dialSlow(ctx context.Context, network, addr string, delay time.Duration, line *redisLine) (net.Conn, error) {
	if err := task.Sleep(ctx, 2*delay); err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	line.wire.Add(3 * tcpHeader)
	c := &slowConn{Conn: conn, line: line, out: newDelayLine(delay), in: newDelayLine(delay)}
	line.wg.Go(func() { // both end when the connection is closed
		for {
			b, err := c.out.take(time.Time{})
			if err != nil {
				return
			}
			if _, err := conn.Write(b); err != nil {
				c.in.end(err)
				return
			}
		}
	})
	line.wg.Go(func() {
		for {
			b := make([]byte, 64<<10)
			n, err := conn.Read(b)
			if n > 0 {
				line.count(n)
				c.in.put(b[:n])
			}
			if err != nil {
				c.in.end(err)
				return
			}
		}
	})
	return c, nil
}

// count counts one write of n bytes, in segments of Ethernet's maximum size.
func (l *redisLine) count(n int) {
	const segment = 1448
	segments := (n + segment - 1) / segment
	l.payload.Add(int64(n))
	l.wire.Add(int64(n + segments*tcpHeader + (segments+1)/2*tcpHeader))
}

func (c *slowConn) Write(b []byte) (int, error) {
	c.line.count(len(b))
	return len(b), c.out.put(bytes.Clone(b))
}

func (c *slowConn) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		var err error
		if c.rest, err = c.in.take(c.in.until()); err != nil {
			return 0, err
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *slowConn) Close() error {
	c.out.end(net.ErrClosed)
	c.in.end(net.ErrClosed)
	return c.Conn.Close()
}

func (c *slowConn) SetDeadline(t time.Time) error      { return c.SetReadDeadline(t) }
func (c *slowConn) SetReadDeadline(t time.Time) error  { c.in.setDeadline(t); return nil }
func (c *slowConn) SetWriteDeadline(t time.Time) error { return nil } // writes never block

// A delayLine passes its input on after its delay, in order.
type delayLine struct {
	delay time.Duration
	queue chan delayed
	ended chan struct{}

	mu       sync.Mutex
	err      error
	deadline time.Time
}

type delayed struct {
	at   time.Time
	data []byte
}

func newDelayLine(d time.Duration) *delayLine {
	return &delayLine{delay: d, queue: make(chan delayed, 1024), ended: make(chan struct{})}
}

func (l *delayLine) put(b []byte) error {
	select {
	case l.queue <- delayed{time.Now().Add(l.delay), b}:
		return nil
	case <-l.ended:
		return l.err
	}
}

func (l *delayLine) take(deadline time.Time) ([]byte, error) {
	var timeout <-chan time.Time
	if !deadline.IsZero() {
		timeout = time.After(time.Until(deadline))
	}
	// Data sent before the end still arrives.
	var d delayed
	select {
	case d = <-l.queue:
	default:
		select {
		case d = <-l.queue:
		case <-l.ended:
			return nil, l.err
		case <-timeout:
			return nil, os.ErrDeadlineExceeded
		}
	}
	time.Sleep(time.Until(d.at))
	return d.data, nil
}

// end makes put and take fail with err from now on.
func (l *delayLine) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		close(l.ended)
	}
}

func (l *delayLine) setDeadline(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
}

func (l *delayLine) until() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deadline
}
