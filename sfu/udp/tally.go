package udp

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
)

// A batchTally counts what batches are made of.
type batchTally struct{ calls, messages, datagrams atomic.Int64 }

func (t *batchTally) read() BatchCounters {
	return BatchCounters{Calls: t.calls.Load(), Messages: t.messages.Load(), Datagrams: t.datagrams.Load()}
}

// refusalNames are the errors for which datagrams are not sent, by their names
// in metrics; "other" is any other.
var refusalNames = [...]struct {
	err  error
	name string
}{
	{syscall.ENOBUFS, "enobufs"},
	{syscall.ENOMEM, "enomem"},
	{syscall.EPERM, "eperm"}, // a firewall's rule
	{syscall.EMSGSIZE, "emsgsize"},
	{syscall.EINVAL, "einval"},
	{syscall.EIO, "eio"},
	{syscall.ENETUNREACH, "enetunreach"},
	{syscall.EHOSTUNREACH, "ehostunreach"},
	{os.ErrDeadlineExceeded, "deadline"},
	{net.ErrClosed, "closed"},
}

// refuse counts n datagrams that were not sent because of err.
func (w *wire) refuse(n int, err error) {
	for i := range refusalNames {
		if errors.Is(err, refusalNames[i].err) {
			w.refusals[i].Add(int64(n))
			return
		}
	}
	w.refusals[len(refusalNames)].Add(int64(n))
}

func (w *wire) refused() map[string]int64 {
	all := map[string]int64{"other": w.refusals[len(refusalNames)].Load()}
	for i := range refusalNames {
		all[refusalNames[i].name] = w.refusals[i].Load()
	}
	return all
}
