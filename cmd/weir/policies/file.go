package policies

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"weir/capacity/event"
	"weir/capacity/policy"
	"weir/cmd/weir/eventlog"
)

// MaxFile bounds the bytes read of a policy's file: a little more than a
// policy may have, so that the parser reports a policy that is too long.
const MaxFile = 64 << 10

// ReadText reads the file name, "-" being stdin if there is one.
func ReadText(name string, stdin io.Reader) ([]byte, error) {
	in := stdin
	if name != "-" || stdin == nil {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, MaxFile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return text, nil
}

// policyCheck is how often a policy's file is checked for changes.
const policyCheck = time.Second

// A File is the policy in force: the built-in one, or that of a file,
// which may change while the node runs. A file with a mistake changes nothing.
type File struct {
	inForce atomic.Pointer[policy.Compiled]
	log     *slog.Logger

	mu   sync.Mutex
	path string // "": the built-in one
	text []byte // as last read

	Event func(event.Event) // nil: events go to the log only
}

// Open returns the policy in the file at path, or the built-in one if
// path is "".
func Open(path string, log *slog.Logger) (*File, error) {
	f := &File{path: path, log: log}
	compiled, err := policy.Compile(policy.Default())
	if path != "" {
		if f.text, err = ReadText(path, nil); err == nil {
			compiled, err = f.parse()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--policy: %w", err)
	}
	f.inForce.Store(compiled)
	return f, nil
}

// parse parses text. Version 0 is the built-in policy's: holders and seekers
// take the same version for the same policy.
func (f *File) parse() (*policy.Compiled, error) {
	compiled, err := policy.Parse(f.path, f.text)
	if err == nil && compiled.Policy().Version == 0 {
		err = fmt.Errorf("%s: it has no version: add for example version: 1, and raise it with every change", f.path)
	}
	return compiled, err
}

// Policy is the policy in force, ready for use.
func (f *File) Policy() *policy.Compiled { return f.inForce.Load() }

// Force puts a policy in force, and returns the one before.
func (f *File) Force(now *policy.Compiled) (before policy.Policy) {
	return f.inForce.Swap(now).Policy()
}

// Run applies changes of the file until ctx is done. Sessions, streams and
// links are not touched: the next decision is made by the new policy.
func (f *File) Run(ctx context.Context) error {
	tick := time.NewTicker(policyCheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		_ = f.Reload() // reload reports its errors itself
	}
}

// Take puts the policy of next in force, and follows its file.
func (f *File) Take(next *File) {
	next.mu.Lock()
	path, text := next.path, next.text
	next.mu.Unlock()
	f.mu.Lock()
	f.path, f.text = path, text
	f.mu.Unlock()
	before, now := f.Force(next.Policy()), next.Policy().Policy()
	f.tell(event.Event{Kind: event.PolicyApplied, Detail: fmt.Sprintf("%q version %d, after version %d", now.Name, now.Version, before.Version)})
}

// Reload reads the file, if there is one. It has reported its error already.
func (f *File) Reload() error {
	compiled, err := f.changed()
	if err != nil {
		f.tell(event.Event{Kind: event.PolicyRefused, Detail: err.Error()})
		return err
	}
	if compiled != nil {
		before, now := f.Force(compiled), compiled.Policy()
		f.tell(event.Event{Kind: event.PolicyApplied, Detail: fmt.Sprintf("%q version %d, after version %d", now.Name, now.Version, before.Version)})
	}
	return nil
}

// changed returns the file's policy, or nil if the file has not changed.
func (f *File) changed() (*policy.Compiled, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.path == "" {
		return nil, nil
	}
	text, err := ReadText(f.path, nil)
	if err != nil || bytes.Equal(text, f.text) {
		return nil, nil // a missing file is being replaced
	}
	f.text = text
	return f.parse()
}

func (f *File) tell(e event.Event) { eventlog.Tell(f.Event, f.log, e) }
