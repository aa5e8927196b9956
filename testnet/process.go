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

// poll is the time between two looks at what another process has done: it is
// nobody's child here, or too many are, to be waited for.
const poll = 10 * time.Millisecond

// procState is what /proc/PID/stat says of a process (proc(5)).
type procState struct {
	state byte   // 'R', 'S', 'T' (stopped), 'Z' (ended, not yet waited for), …
	start string // boot and clock ticks since it at which the process began
}

// ended reports whether no code of the process runs any more.
func (p procState) ended() bool { return p.state == 'Z' || p.state == 'X' }

// readProc returns fs.ErrNotExist if there is no such process.
func readProc(pid int) (procState, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, syscall.ESRCH) { // it ended while we read
		err = fs.ErrNotExist
	}
	if err != nil {
		return procState{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return procState{}, err
	}
	// The name, in parentheses, may hold spaces and parentheses.
	const startField = 22 - 3 // counted from the state, which is field 3
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) <= startField {
		return procState{}, fmt.Errorf("/proc/%d/stat: not understood: %q", pid, b)
	}
	return procState{state: fields[0][0], start: string(bytes.TrimSpace(boot)) + "/" + string(fields[startField])}, nil
}

// lookup returns the state of process pid if it is the one that began at start,
// and fs.ErrNotExist if that one has ended and pid may be another's by now.
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
	// The handle is bound to whoever has the pid now (pidfd_open(2)); only then
	// is it asked who that is. The other way round the pid could change hands
	// between the two.
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

// A starter starts processes that end when this one does, however it ends: the
// kernel kills them (PR_SET_PDEATHSIG). It looks at the thread that started
// them, so that one is kept until close.
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
		lines = lines[1:] // it began before what was read
	}
	lines = lines[max(0, len(lines)-tailLines):]
	if len(lines) == 1 && lines[0] == "" {
		return "(the log is empty)"
	}
	return strings.Join(lines, "\n")
}
