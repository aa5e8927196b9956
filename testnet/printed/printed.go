// Package printed finds the commands that weir prints and that its
// documentation shows, and runs them unchanged.
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

// Lines returns the commands in text that stand on lines of their own: those of
// Markdown's code blocks, and elsewhere those that are indented or follow a
// word and blanks ("publish   weir publish …"). Comments are dropped, and lines
// continued by a backslash are joined.
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

// Spans returns the commands that stand as code within sentences of Markdown,
// such as `weir status`; those of Lines are left out.
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

// A Shell runs commands as a user would, with none of weir's variables in the
// environment but the given ones, and a home directory of its own.
type Shell struct {
	dir string // the working directory
	env []string
	in  []string // prefix that enters the namespace; nil: no namespace
	end func()
}

// NewShell returns a shell in dir whose "weir" and "bin/weir" are the binary
// given. If permitted it has a network of its own, so that fixed ports are
// free. Scratch is a directory that nothing else uses.
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

// isolate starts a process that holds a network namespace, if permitted.
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

// Close ends the namespace. All jobs must have been stopped.
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

// Run runs a command to its end and returns its output. The error says that it
// did not exit with 0.
func (s *Shell) Run(ctx context.Context, line string) (string, error) {
	var out bytes.Buffer
	cmd := s.command(ctx, line)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// A Job is a command that runs until it is interrupted.
type Job struct {
	line string
	cmd  *exec.Cmd
	done chan struct{}
	err  error

	mu  sync.Mutex
	out bytes.Buffer
}

// Write implements io.Writer for the command's output.
func (j *Job) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.Write(b)
}

// Output is the command's output so far.
func (j *Job) Output() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.String()
}

// Start starts a command that runs until Stop.
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

// Await waits until the command has printed text, or until ctx or the command
// ends, which is an error.
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

// Stop interrupts the command, as Ctrl-C does. It returns an error if the
// command had ended before, or does not exit with 0.
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
