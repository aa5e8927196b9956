package forward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	readyTime = 30 * time.Second
	endTime   = 5 * time.Second
	pollPause = 20 * time.Millisecond
	stream    = "load"

	profileSeconds = 5
)

// A process is a server while it is measured.
type process struct {
	whip, whep string
	admin      string // URL, of a weir
	pid        int
	cmd        *exec.Cmd     // nil: not ours
	exited     chan struct{} // closed once cmd has been waited for
}

// start starts a server on that CPU, or finds the one that runs.
func (s Server) start(ctx context.Context, dir string, cpu int, pinned bool) (*process, error) {
	p := &process{whip: s.WHIP, whep: s.WHEP, pid: s.PID}
	if s.PID != 0 {
		if pinned {
			if err := pin(s.PID, only(cpu)); err != nil {
				return nil, err
			}
		}
		return p, nil
	}
	ready := filepath.Join(dir, "ready.json")
	args := s.Command
	if s.Weir != "" {
		args = []string{s.Weir, "node", "--data-dir", filepath.Join(dir, "data"), "--ready-file", ready,
			"--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--media-port", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0",
			"--session-limit", "0", "--packet-limit", "0", "--uplink-limit", "100gbps", "--cpu-limit", "0", "--stop-timeout", "0", "--log-level", "warn"}
	}
	output, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer output.Close()
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = output, output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "WEIR_") {
			p.cmd.Env = append(p.cmd.Env, v)
		}
	}
	p.cmd.Env = append(p.cmd.Env, s.Env...)
	if err := startOn(p.cmd, cpu, pinned); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	p.pid, p.exited = p.cmd.Process.Pid, make(chan struct{})
	go func() {
		_ = p.cmd.Wait() // that it ended is what counts
		close(p.exited)
	}()
	if err := p.await(ctx, s, ready); err != nil {
		tail, _ := os.ReadFile(output.Name())
		return nil, errors.Join(fmt.Errorf("%s is not ready: %w: %s", s.Name, err, tail[max(0, len(tail)-1000):]), p.close())
	}
	return p, nil
}

// startOn starts cmd from a thread on that CPU, which the child inherits: a Go
// program counts the CPUs that it may use when it begins.
func startOn(cmd *exec.Cmd, cpu int, pinned bool) error {
	if !pinned {
		return cmd.Start()
	}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with its affinity
		if err := unix.SchedSetaffinity(0, only(cpu)); err != nil {
			started <- fmt.Errorf("pin to CPU %d: %w", cpu, err)
			return
		}
		started <- cmd.Start()
	}()
	return <-started
}

// await waits until the server answers.
func (p *process) await(ctx context.Context, s Server, ready string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		ok, err := p.ready(s, ready)
		if ok || err != nil {
			return err
		}
		select {
		case <-time.After(pollPause):
		case <-p.exited:
			return errors.New("it ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *process) ready(s Server, file string) (bool, error) {
	if s.Weir == "" {
		u, err := url.Parse(s.WHIP)
		if err != nil {
			return false, err
		}
		c, err := net.DialTimeout("tcp", u.Host, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil, nil
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	var told struct {
		HTTP  string `json:"http"`
		Admin string `json:"admin"`
	}
	if err := errors.Join(err, json.Unmarshal(b, &told)); err != nil {
		return false, err
	}
	p.admin = told.Admin
	p.whip, p.whep = told.HTTP+"/whip/"+stream, told.HTTP+"/whep/"+stream
	return true, nil
}

// close ends what start has started, and waits.
func (p *process) close() error {
	if p.cmd == nil {
		return nil
	}
	_ = syscall.Kill(-p.pid, syscall.SIGTERM)
	select {
	case <-p.exited:
		return nil
	case <-time.After(endTime):
	}
	_ = syscall.Kill(-p.pid, syscall.SIGKILL)
	<-p.exited
	return nil
}

// profile writes a CPU profile of a weir to file (net/http/pprof).
func (p *process) profile(ctx context.Context, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", p.admin, profileSeconds), nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s", resp.Status)
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, resp.Body)
	return errors.Join(err, out.Close())
}
