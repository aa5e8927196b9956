package forward

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ErrInput means that a [Config] is wrong.
var ErrInput = errors.New("bench forward")

// A Server is one to measure: a weir that is started for each measurement, a
// command that is, or a process that runs already.
type Server struct {
	Name    string
	Weir    string   // binary of weir; "": another server
	WHIP    string   // URL; a password in it is the token
	WHEP    string   // likewise
	Env     []string // NAME=VALUE, for Command
	Command []string // that starts it, for each measurement anew
	PID     int      // of one that runs, if there is no Command
}

// ParseWeir reads NAME=FILE, or FILE, as a weir to start.
func ParseWeir(s string) Server {
	if name, file, ok := strings.Cut(s, "="); ok && !strings.Contains(name, "/") {
		return Server{Name: name, Weir: file}
	}
	return Server{Name: filepath.Base(s), Weir: s}
}

// ParseServer reads "NAME WHIP-URL WHEP-URL PID" or the same with a command
// instead of the PID: variables, the program and its arguments.
func ParseServer(s string) (Server, error) {
	f := strings.Fields(s)
	if len(f) < 4 {
		return Server{}, fmt.Errorf("%w: server %q: want its name, the WHIP URL, the WHEP URL, and its PID or the command that starts it", ErrInput, s)
	}
	server := Server{Name: f[0], WHIP: f[1], WHEP: f[2]}
	for _, raw := range f[1:3] {
		if u, err := url.Parse(raw); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return Server{}, fmt.Errorf("%w: server %s: %q is no http URL", ErrInput, f[0], raw)
		}
	}
	pid, err := strconv.Atoi(f[3])
	if err == nil && len(f) == 4 {
		if pid < 1 {
			return Server{}, fmt.Errorf("%w: server %s: no PID %d", ErrInput, f[0], pid)
		}
		server.PID = pid
		return server, nil
	}
	for server.Command = f[3:]; len(server.Command) > 0 && strings.Contains(server.Command[0], "="); server.Command = server.Command[1:] {
		server.Env = append(server.Env, server.Command[0])
	}
	if len(server.Command) == 0 {
		return Server{}, fmt.Errorf("%w: server %s: no command", ErrInput, f[0])
	}
	if server.Command[0], err = exec.LookPath(server.Command[0]); err != nil {
		return Server{}, fmt.Errorf("%w: server %s: %w", ErrInput, f[0], err)
	}
	return server, nil
}

// Config is the configuration of [Run]. The zero value of an optional field
// means the default in its comment.
type Config struct {
	Servers []Server // at least one, or none to measure the floor alone
	Dir     string   // for the nodes' data; must exist

	Viewers  []int         // numbers of them; default 1, 10 and 100
	Rounds   int           // of each number and server; default 1
	Duration time.Duration // of a measurement, at most a minute; default 10 s
	Settle   time.Duration // after the last viewer has joined; default 2 s
	Join     float64       // viewers a second; default 50
	NoFloor  bool
	Profiles string // a directory for a CPU profile of each weir with each number of viewers, taken after the measurement; "": none

	ServerCPU    int
	GeneratorCPU int // the same: nothing is pinned
	Log          *slog.Logger
}

const (
	mostViewers  = 5000
	mostDuration = time.Minute
)

// Check fills in the defaults. The error says which field is wrong.
func (c *Config) Check() error {
	if len(c.Viewers) == 0 {
		c.Viewers = []int{1, 10, 100}
	}
	for _, n := range c.Viewers {
		if n < 1 || n > mostViewers {
			return fmt.Errorf("%w: %d viewers: 1 to %d are possible", ErrInput, n, mostViewers)
		}
	}
	if c.Rounds == 0 {
		c.Rounds = 1
	}
	if c.Duration == 0 {
		c.Duration = 10 * time.Second
	}
	if c.Settle == 0 {
		c.Settle = 2 * time.Second
	}
	if c.Join == 0 {
		c.Join = 50
	}
	if c.Rounds < 1 || c.Rounds > 100 || c.Duration < 0 || c.Duration > mostDuration || c.Settle < 0 || c.Join < 0 {
		return fmt.Errorf("%w: want 1 to 100 rounds, a duration of at most %v, and no negative numbers", ErrInput, mostDuration)
	}
	names := map[string]bool{}
	for _, s := range c.Servers {
		if names[s.Name] || s.Name == floorName {
			return fmt.Errorf("%w: two servers are called %s: --weir NAME=FILE names them", ErrInput, s.Name)
		}
		names[s.Name] = true
	}
	if len(c.Servers) == 0 && c.NoFloor {
		return fmt.Errorf("%w: neither a server nor the floor to measure", ErrInput)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
