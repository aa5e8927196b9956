package forward

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is the unit of times in /proc/stat: USER_HZ is 100 on every
// Linux.
const clockTick = 10 * time.Millisecond

// only is the set of one CPU.
func only(cpu int) *unix.CPUSet {
	var set unix.CPUSet
	set.Set(cpu)
	return &set
}

// pin keeps all threads of a process on those CPUs; new ones inherit that.
func pin(pid int, set *unix.CPUSet) error {
	// Threads may begin meanwhile: until a pass finds no new one.
	pinned := map[int]bool{}
	for {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil || len(tasks) == 0 {
			return fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
		}
		again := false
		for _, task := range tasks {
			tid, err := strconv.Atoi(filepath.Base(task))
			if err != nil || pinned[tid] {
				continue
			}
			if err := unix.SchedSetaffinity(tid, set); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("pin process %d: %w", pid, err)
			}
			pinned[tid], again = true, true
		}
		if !again {
			return nil
		}
	}
}

// cpuTime is the CPU time that a process has used, in the kernel and out of it: to
// the nanosecond, by the process's own clock (clock_getcpuclockid(3)).
func cpuTime(pid int) (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED, in include/linux/posix-timers_types.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &t); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// memory is what a process occupies, in bytes: its share of pages (PSS), and
// all it has (RSS).
func memory(pid int) (pss, rss int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		kb, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "Pss:":
			pss = kb << 10
		case "Rss:":
			rss = kb << 10
		}
	}
	if pss == 0 {
		return 0, 0, fmt.Errorf("/proc/%d/smaps_rollup: not understood", pid)
	}
	return pss, rss, nil
}

// drops is how many datagrams the kernel has dropped at the UDP sockets of a
// process.
func drops(pid int) (uint64, error) {
	own := map[string]bool{} // inodes
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		if to, err := os.Readlink(file); err == nil && strings.HasPrefix(to, "socket:[") {
			own[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	var sum uint64
	for _, table := range []string{"udp", "udp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		const inode, dropped = 9, 12
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > dropped && own[f[inode]] {
				n, err := strconv.ParseUint(f[dropped], 10, 64)
				if err != nil {
					return 0, fmt.Errorf("/proc/%d/net/%s: %w", pid, table, err)
				}
				sum += n
			}
		}
	}
	return sum, nil
}

// idleTime is how long a CPU has had nothing to do since the machine started.
func idleTime(cpu int) (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 5 && f[0] == fmt.Sprintf("cpu%d", cpu) {
			idle, err1 := strconv.ParseInt(f[4], 10, 64)
			wait, err2 := strconv.ParseInt(f[5], 10, 64)
			return time.Duration(idle+wait) * clockTick, errors.Join(err1, err2)
		}
	}
	return 0, fmt.Errorf("/proc/stat: no cpu%d", cpu)
}

// describe is the machine, for whoever compares its figures with others.
func describe() Machine {
	m := Machine{}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(line, ":")
			switch strings.TrimSpace(name) {
			case "model name":
				m.CPU = strings.TrimSpace(value)
				m.CPUs++
			}
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = uint64(info.Totalram) * uint64(info.Unit)
	}
	return m
}

func loadAverage() float64 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	var load float64
	_, _ = fmt.Sscan(string(b), &load) // 0 if it is not understood
	return load
}
