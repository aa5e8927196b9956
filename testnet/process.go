package testnet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// poll is the interval of checks on other processes: they are not children of
// this one, or too many to wait for each.
const poll = 10 * time.Millisecond

// procState is the state in /proc/PID/stat of a process (proc(5)).
type procState struct {
	state byte   // 'R', 'S', 'T' (stopped), 'Z' (ended, not yet waited for), …
	start string // boot ID and start time in clock ticks
}

// ended reports whether no code of the process runs any more.
func (p procState) ended() bool { return p.state == 'Z' || p.state == 'X' }

// readProc returns fs.ErrNotExist if there is no such process.
func readProc(pid int) (procState, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, syscall.ESRCH) { // it ended during the read
		err = fs.ErrNotExist
	}
	if err != nil {
		return procState{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return procState{}, err
	}
	// The name, in parentheses, may contain spaces and parentheses.
	const startField = 22 - 3 // relative to the state, which is field 3
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) <= startField {
		return procState{}, fmt.Errorf("/proc/%d/stat: not understood: %q", pid, b)
	}
	return procState{state: fields[0][0], start: string(bytes.TrimSpace(boot)) + "/" + string(fields[startField])}, nil
}

// lookup returns the state of process pid if it is the one that began at start,
// and fs.ErrNotExist if that one has ended and pid may belong to another.
func lookup(pid int, start string) (procState, error) {
	p, err := readProc(pid)
	if err != nil {
		return procState{}, err
	}
	if p.start != start || p.ended() {
		return procState{}, fs.ErrNotExist
	}
	return p, nil
}

// alive reports whether the process that began at start still runs, stopped or
// not.
func alive(pid int, start string) bool {
	_, err := lookup(pid, start)
	return err == nil
}

// signal sends sig to process pid if it is the one that began at start, and
// returns os.ErrProcessDone if it is not.
func signal(pid int, start string, sig syscall.Signal) error {
	// The handle is bound to the process that has the pid now (pidfd_open(2));
	// its start is checked only then. In the other order another process could
	// get the pid in between.
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer func() { _ = p.Release() }()
	if !alive(pid, start) {
		return os.ErrProcessDone
	}
	return p.Signal(sig)
}

// A starter starts processes that end when this one does, in whatever way: the
// kernel kills them (PR_SET_PDEATHSIG). That signal depends on the thread that
// started them, so that thread is kept until close.
type starter struct {
	work chan func()
	done chan struct{}
}

func newStarter() *starter {
	s := &starter{work: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for f := range s.work {
			f()
		}
	}()
	return s
}

func (s *starter) start(cmd *exec.Cmd) error {
	killWithParent(cmd.SysProcAttr)
	result := make(chan error)
	s.work <- func() { result <- cmd.Start() }
	return <-result
}

func (s *starter) close() {
	close(s.work)
	<-s.done
}

// nodeEnv is this process's environment without the variables that weir node
// would read as flags.
func nodeEnv() []string {
	var kept []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "WEIR_") {
			kept = append(kept, v)
		}
	}
	return kept
}

const (
	tailLines = 12
	tailBytes = 4 << 10
)

// logTail returns the last lines of a log, or says why there are none.
func logTail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	cut := false
	if info, err := f.Stat(); err == nil && info.Size() > tailBytes {
		_, _ = f.Seek(-tailBytes, io.SeekEnd)
		cut = true
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if cut && len(lines) > 1 {
		lines = lines[1:] // its start was not read
	}
	lines = lines[max(0, len(lines)-tailLines):]
	if len(lines) == 1 && lines[0] == "" {
		return "(the log is empty)"
	}
	return strings.Join(lines, "\n")
}
