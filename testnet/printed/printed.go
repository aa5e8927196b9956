// Package printed finds the commands that weir prints and that its
// documentation shows, and runs them as they stand there.
package printed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Lines are the commands in text that stand on lines of their own: those of
// Markdown's code blocks, and elsewhere those that are indented or follow a word
// and blanks ("publish   weir publish …"). Comments are dropped, and lines that
// go on after a backslash are joined.
func Lines(text string) []string {
	var list []string
	code := false
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		if strings.HasPrefix(line, "```") {
			code = !code
			continue
		}
		if code {
			line = "  " + line
		}
		if m := ownLine.FindStringSubmatch(strings.TrimRight(line, " \n")); m != nil {
			list = append(list, tidy(m[1]))
		}
	}
	return list
}

// Spans are the commands that stand as code within sentences of Markdown, as
// `weir status`, those of whole lines left out.
func Spans(markdown string) []string {
	var list []string
	for _, m := range codeSpan.FindAllStringSubmatch(codeBlock.ReplaceAllString(markdown, ""), -1) {
		if line := tidy(m[1]); !slices.Contains(list, line) {
			list = append(list, line)
		}
	}
	return list
}

var (
	ownLine   = regexp.MustCompile(`^(?:[a-z]+)? {2,}((?:source <\()?(?:bin/)?weir [a-z].*|make [a-z].*)$`)
	codeSpan  = regexp.MustCompile("`(weir [^`]+)`")
	codeBlock = regexp.MustCompile("(?s)```.*?```")
	comment   = regexp.MustCompile(`\s+# .*$`)
	blanks    = regexp.MustCompile(`\s+`)
)

func tidy(line string) string {
	return strings.TrimSpace(blanks.ReplaceAllString(comment.ReplaceAllString(line, ""), " "))
}

// A Shell runs commands as a person would, with nothing of weir's in the
// environment but what is given, and a home of their own.
type Shell struct {
	dir string // the working directory
	env []string
	in  []string // what puts a command into the namespace; nil: it is not in one
	end func()
}

// NewShell is a shell in dir whose "weir" and "bin/weir" are the binary given.
// Where that is permitted it has a network of its own, so that fixed ports are
// free. Scratch is a directory that nobody else uses.
func NewShell(binary, dir, scratch string) (*Shell, error) {
	bin := filepath.Join(scratch, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, err
	}
	if err := os.Symlink(binary, filepath.Join(bin, "weir")); err != nil {
		return nil, err
	}
	s := &Shell{dir: dir, end: func() {}}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "WEIR_") && name != "HOME" && name != "PATH" && !strings.HasPrefix(name, "XDG_") {
			s.env = append(s.env, v)
		}
	}
	s.env = append(s.env, "HOME="+scratch, "PATH="+bin+":"+os.Getenv("PATH"))
	s.isolate()
	return s, nil
}

// isolate starts a process that keeps a network namespace, if it may.
func (s *Shell) isolate() {
	keeper := exec.Command("unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat")
	in, err := keeper.StdinPipe()
	if err != nil {
		return
	}
	out, err := keeper.StdoutPipe()
	if err != nil || keeper.Start() != nil {
		return
	}
	stop := sync.OnceFunc(func() {
		_ = in.Close()
		_ = keeper.Wait()
	})
	up := make([]byte, 3)
	if _, err := out.Read(up); err != nil || string(up) != "up\n" {
		stop()
		return
	}
	s.in = []string{"nsenter", "--target", fmt.Sprint(keeper.Process.Pid), "--net"}
	s.end = stop
}

// Isolated reports whether commands have a network of their own.
func (s *Shell) Isolated() bool { return s.in != nil }

// Close ends the namespace. What was started must have been stopped.
func (s *Shell) Close() { s.end() }

func (s *Shell) command(ctx context.Context, line string) *exec.Cmd {
	line = strings.ReplaceAll(line, "bin/weir ", "weir ")
	args := append(slices.Clone(s.in), "bash", "-c", line)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Run runs a command to its end and returns what it printed. The error is that
// it did not exit with 0.
func (s *Shell) Run(ctx context.Context, line string) (string, error) {
	var out bytes.Buffer
	cmd := s.command(ctx, line)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// A Job is a command that goes on until it is interrupted.
type Job struct {
	line string
	cmd  *exec.Cmd
	done chan struct{}
	err  error

	mu  sync.Mutex
	out bytes.Buffer
}

// Write implements io.Writer for what the command prints.
func (j *Job) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.Write(b)
}

// Output is what it has printed so far.
func (j *Job) Output() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.String()
}

// Start starts a command that goes on.
func (s *Shell) Start(line string) (*Job, error) {
	j := &Job{line: line, done: make(chan struct{})}
	j.cmd = s.command(context.Background(), "exec "+line)
	j.cmd.Stdout, j.cmd.Stderr = j, j
	if err := j.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		j.err = j.cmd.Wait()
		close(j.done)
	}()
	return j, nil
}

// Await waits until the command has printed text.
func (j *Job) Await(ctx context.Context, text string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if strings.Contains(j.Output(), text) {
			return nil
		}
		select {
		case <-tick.C:
		case <-j.done:
			return fmt.Errorf("%s has ended without %q: %w: %s", j.line, text, j.err, j.Output())
		case <-ctx.Done():
			return fmt.Errorf("%s has not printed %q: %s", j.line, text, j.Output())
		}
	}
}

// Stop interrupts the command, as Ctrl-C does, and returns an error if it had
// ended before, or does not end with 0 now.
func (j *Job) Stop() error {
	select {
	case <-j.done:
		return fmt.Errorf("%s has ended by itself: %v: %s", j.line, j.err, j.Output())
	default:
	}
	_ = syscall.Kill(-j.cmd.Process.Pid, syscall.SIGINT)
	select {
	case <-j.done:
	case <-time.After(30 * time.Second):
		_ = syscall.Kill(-j.cmd.Process.Pid, syscall.SIGKILL)
		<-j.done
		return fmt.Errorf("%s did not end when interrupted: %s", j.line, j.Output())
	}
	var exit *exec.ExitError
	if errors.As(j.err, &exit) {
		return fmt.Errorf("%s, interrupted: %w: %s", j.line, j.err, j.Output())
	}
	return nil
}
