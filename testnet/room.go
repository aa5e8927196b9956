package testnet

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// The needs of a node of a testnet of n nodes without media. Measured with 5,
// 20 and 40 nodes: 16.4, 16.8 and 19.9 MB without what processes share, 15, 41
// and 54 descriptors on the node with most, 9 threads. From some size on a node
// is not connected to all others.
const (
	nodeBytes     = 18 << 20
	linkBytes     = 100 << 10 // more for each other node that it is connected to
	nodeFiles     = 20        // one more for each such node
	nodeThreads   = 10
	mostConnected = 200
)

// A Room is this machine's free resources for nodes. Figures that the system
// does not report are 0, and not checked.
type Room struct {
	Memory    int64 // bytes
	Files     int64 // that may be opened in total
	FilesEach int64 // that one process may open
	Threads   int64 // of all processes
}

// MeasureRoom reads this machine's free resources.
func MeasureRoom() Room {
	r := readRoom(os.DirFS("/"))
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		r.FilesEach = int64(min(limit.Max, 1<<62)) // Go raises its own limit to that
	}
	return r
}

func readRoom(fsys fs.FS) (r Room) {
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return 0
		}
		return n
	}
	fields := func(name string) []string {
		b, _ := fs.ReadFile(fsys, name) // an empty file gives no figure
		return strings.Fields(string(b))
	}
	mem := fields("proc/meminfo")
	for i, f := range mem {
		if f == "MemAvailable:" && i+2 < len(mem) && mem[i+2] == "kB" {
			r.Memory = number(mem[i+1]) << 10
		}
	}
	if nr := fields("proc/sys/fs/file-nr"); len(nr) == 3 { // in use, unused, at most
		r.Files = max(0, number(nr[2])-number(nr[0]))
	}
	for _, name := range []string{"proc/sys/kernel/pid_max", "proc/sys/kernel/threads-max"} {
		if most := fields(name); len(most) == 1 && number(most[0]) > 0 && (r.Threads == 0 || number(most[0]) < r.Threads) {
			r.Threads = number(most[0])
		}
	}
	return r
}

// check returns an error if the machine has no room for more nodes in a testnet
// that then has n nodes. A fifth is left to other users of the machine.
func (r Room) check(more, n int) error {
	connected := int64(min(n, mostConnected))
	bytes := nodeBytes + connected*linkBytes
	files := nodeFiles + connected
	for _, need := range []struct {
		what        string
		each, have  int64 // of each node, and in total
		say         func(int64) string
		ofEach      bool
		belowMargin int64 // of have, in fifths
	}{
		{"memory", bytes, r.Memory, megabytes, false, 4},
		{"descriptors", files, r.Files, plainly, false, 4},
		{"threads", nodeThreads, r.Threads, plainly, false, 4},
		{"descriptors each", files, r.FilesEach, plainly, true, 5},
	} {
		needed := need.each * int64(more)
		if need.ofEach {
			needed = need.each
		}
		if most := need.have / 5 * need.belowMargin; need.have > 0 && needed > most {
			hint := ""
			if !need.ofEach {
				hint = fmt.Sprintf(" (for about %d nodes)", most/need.each)
			}
			return fmt.Errorf("%w: %d more nodes need about %s of %s, and this machine has %s to spare%s: ask for fewer, or go on with --force",
				ErrInput, more, need.say(needed), need.what, need.say(most), hint)
		}
	}
	return nil
}

func plainly(n int64) string { return strconv.FormatInt(n, 10) }

func megabytes(n int64) string {
	if n >= 10<<30 {
		return fmt.Sprintf("%d GB", n>>30)
	}
	return fmt.Sprintf("%d MB", n>>20)
}
