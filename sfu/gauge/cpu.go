package gauge

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
)

// quotaAge is how long a CPU quota is cached: it can change while the process
// runs.
const quotaAge = 10 * time.Second

// cpuMeter computes the share of the available CPU that this process needs. It
// belongs to one goroutine.
//
// The share is the part of the time in which threads of this process run, or
// are ready and wait for a core, on average over the available cores:
//
//	(run + run delay) / available cores
//
// CPU use of other programs does not count by itself: much of it gives way
// (nice, cpu.weight, or just the scheduler's fairness), and how much is seen
// only under load. Where it does not give way our threads wait, and that
// counts: if others take 80 % of the machine and we need the rest and more, our
// threads are always ready, and the share is 1 at a use of 20 %. On a machine
// that others fill with work that yields, the share is our own use only. A
// process that is throttled by its quota waits too, so the quota needs no meter
// of its own.
//
// The available cores are those of the smallest CPU quota above this process,
// or those it may run on, minus the time taken by interrupts and the
// hypervisor.
type cpuMeter struct {
	fsys fs.FS // root of the machine's file system, for /proc and /sys

	at      time.Time
	run     time.Duration
	delays  map[string]time.Duration // run delay by thread
	machine machineTime
	live    bool

	quota   float64 // cores; 0: none
	quotaAt time.Time
}

// machineTime is the time of all cores since the machine started, in seconds:
// all of it, and the part lost to interrupts and the hypervisor.
type machineTime struct{ total, gone float64 }

// share returns the share, 0…1, of the available CPU that this process has
// needed since the last call, and how many cores it may use.
func (m *cpuMeter) share(now time.Time) (share, cores float64, err error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, 0, fmt.Errorf("read CPU time: %w", err)
	}
	run := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	delays := runDelays(m.fsys)
	if now.Sub(m.quotaAt) >= quotaAge {
		m.quota, m.quotaAt = cpuQuota(m.fsys), now
	}
	machine, err := readMachineTime()
	if err != nil {
		return 0, 0, err
	}
	left := float64(runtime.NumCPU())
	if total := machine.total - m.machine.total; m.live && total > 0 {
		left *= 1 - min(0.9, max(0, (machine.gone-m.machine.gone)/total))
	}
	cores = float64(runtime.NumCPU())
	if m.quota > 0 {
		left, cores = min(left, m.quota), min(cores, m.quota)
	}
	if passed := now.Sub(m.at).Seconds(); m.live && passed > 0 {
		wanted := (run - m.run + waited(m.delays, delays)).Seconds() / passed
		share = min(1, max(0, wanted/left))
	}
	m.at, m.run, m.delays, m.machine, m.live = now, run, delays, machine, true
	return share, cores, nil
}

// readMachineTime counts interrupts and the time that the hypervisor gave to
// other machines as gone: no thread gets it.
func readMachineTime() (machineTime, error) {
	times, err := cpu.Times(false)
	if err != nil || len(times) != 1 {
		return machineTime{}, fmt.Errorf("read CPU times: %w", err)
	}
	t := times[0]
	gone := t.Irq + t.Softirq + t.Steal
	return machineTime{total: t.User + t.System + t.Nice + t.Idle + t.Iowait + gone, gone: gone}, nil
}

// runDelays returns how long each thread of this process has been ready without
// running (proc_pid_schedstat(5)); empty where the system does not report it.
func runDelays(fsys fs.FS) map[string]time.Duration {
	const dir = "proc/self/task"
	threads, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil
	}
	all := make(map[string]time.Duration, len(threads))
	for _, t := range threads {
		b, err := fs.ReadFile(fsys, path.Join(dir, t.Name(), "schedstat"))
		if err != nil {
			continue // it has ended
		}
		if d, ok := parseRunDelay(string(b)); ok {
			all[t.Name()] = d
		}
	}
	return all
}

// parseRunDelay parses the second field of "run delay timeslices", in ns.
func parseRunDelay(s string) (time.Duration, bool) {
	fields := strings.Fields(s)
	if len(fields) != 3 {
		return 0, false
	}
	ns, err := strconv.ParseInt(fields[1], 10, 64)
	return time.Duration(ns), err == nil && ns >= 0
}

// waited returns the growth of the run delays. That of an ended thread is lost;
// a new thread began at 0.
func waited(before, after map[string]time.Duration) (sum time.Duration) {
	for thread, d := range after {
		if old := before[thread]; old <= d {
			d -= old
		}
		sum += d
	}
	return sum
}

// Cores returns how many CPU cores this process may use.
func Cores() float64 {
	cores := float64(runtime.NumCPU())
	if quota := cpuQuota(os.DirFS("/")); quota > 0 {
		return min(cores, quota)
	}
	return cores
}

// cpuQuota returns the smallest quota of the control groups above this process,
// in cores, or 0 if none limits it: any of them may, such as systemd's slice,
// the service in it, or a Kubernetes pod around its containers.
func cpuQuota(fsys fs.FS) (least float64) {
	groups, err := fs.ReadFile(fsys, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	mounts, err := fs.ReadFile(fsys, "proc/self/mountinfo")
	if err != nil {
		return 0
	}
	for _, h := range cpuHierarchies(string(groups), string(mounts)) {
		for group := h.group; ; group = path.Dir(group) {
			if q := h.quota(fsys, path.Join(h.mount, group)); q > 0 && (least == 0 || q < least) {
				least = q
			}
			if group == "/" {
				break
			}
		}
	}
	return least
}

// A cgroupHierarchy is a tree of control groups in which the CPU can be limited.
type cgroupHierarchy struct {
	v2    bool
	mount string // mount point of its root, or of the part visible in a container
	group string // group of this process, below mount; "/": mount itself
}

// cpuHierarchies parses /proc/self/cgroup (cgroups(7)) and /proc/self/mountinfo
// (proc_pid_mountinfo(5)).
func cpuHierarchies(groups, mounts string) (all []cgroupHierarchy) {
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3) // ID, controllers, group
		if len(parts) != 3 {
			continue
		}
		v2 := parts[0] == "0" && parts[1] == ""
		if !v2 && !slices.Contains(strings.Split(parts[1], ","), "cpu") {
			continue
		}
		for line := range strings.Lines(mounts) {
			// ID parent device ROOT POINT options… - TYPE source OPTIONS
			before, after, ok := strings.Cut(line, " - ")
			mount, kind := strings.Fields(before), strings.Fields(after)
			if !ok || len(mount) < 5 || len(kind) < 3 {
				continue
			}
			if v2 && kind[0] == "cgroup2" || !v2 && kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), "cpu") {
				all = append(all, cgroupHierarchy{v2: v2, mount: unescapeMount(mount[4]), group: groupBelow(parts[2], unescapeMount(mount[3]))})
				break
			}
		}
	}
	return all
}

// groupBelow returns group as seen below a mount whose root is the group root.
// In a container without a cgroup namespace the two have a common beginning; a
// group outside of root is not visible, and root itself is the nearest visible
// one.
func groupBelow(group, root string) string {
	if root == "/" && !strings.HasPrefix(group, "/..") {
		return path.Clean("/" + group)
	}
	if rest, ok := strings.CutPrefix(group, root); ok && (rest == "" || rest[0] == '/') {
		return path.Clean("/" + rest)
	}
	return "/"
}

// unescapeMount decodes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// quota returns the quota of the control group in dir, in cores; 0: no limit.
func (h cgroupHierarchy) quota(fsys fs.FS, dir string) float64 {
	read := func(name string) string {
		b, _ := fs.ReadFile(fsys, strings.TrimPrefix(path.Join(dir, name), "/")) // the root has no such file
		return strings.TrimSpace(string(b))
	}
	if h.v2 {
		return parseQuota(read("cpu.max"))
	}
	return parseQuota(read("cpu.cfs_quota_us") + " " + read("cpu.cfs_period_us"))
}

// parseQuota parses "quota period", in µs, into cores. A quota of "max"
// (version 2) or -1 (version 1) is no limit, 0.
func parseQuota(s string) float64 {
	quota, period, ok := strings.Cut(strings.TrimSpace(s), " ")
	q, err := strconv.ParseInt(quota, 10, 64)
	p, err2 := strconv.ParseInt(period, 10, 64)
	if !ok || err != nil || err2 != nil || q <= 0 || p <= 0 {
		return 0
	}
	return float64(q) / float64(p)
}
