package gauge

import (
	"io/fs"
	"os"
	"testing"
	"testing/fstest"
	"time"
)

func TestParseQuota(t *testing.T) {
	for in, want := range map[string]float64{
		"150000 100000\n": 1.5, "max 100000": 0, "": 0, "x y": 0, "100000 0": 0, "-1 100000": 0, " ": 0, "NaN 100000": 0,
	} {
		if got := parseQuota(in); got != want {
			t.Errorf("%q: %v; want %v", in, got, want)
		}
	}
}

func TestParseRunDelay(t *testing.T) {
	for in, want := range map[string]time.Duration{"517769023 1929252100 703\n": 1929252100, "0 0 0": 0} {
		if got, ok := parseRunDelay(in); got != want || !ok {
			t.Errorf("%q: %v, %v; want %v", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "1 2", "a b c", "1 -2 3"} {
		if _, ok := parseRunDelay(in); ok {
			t.Errorf("%q was understood", in)
		}
	}
}

func TestCPUQuota(t *testing.T) {
	const (
		root2 = "25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
		root1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n" +
			"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
			"34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
			"41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	)
	for _, tt := range []struct {
		name   string
		groups string
		mounts string
		files  map[string]string // below /sys/fs/cgroup
		want   float64
	}{
		{"no limit anywhere", "0::/user.slice\n", root2, map[string]string{"user.slice/cpu.max": "max 100000\n"}, 0},
		{"systemd's CPUQuota= of the service", "0::/system.slice/weir.service\n", root2,
			map[string]string{"system.slice/weir.service/cpu.max": "150000 100000\n", "system.slice/cpu.max": "max 100000\n"}, 1.5},
		{"a smaller one of the slice above wins", "0::/a.slice/a-b.slice/weir.service\n", root2,
			map[string]string{"a.slice/a-b.slice/weir.service/cpu.max": "300000 100000", "a.slice/a-b.slice/cpu.max": "max 100000", "a.slice/cpu.max": "100000 200000"}, 0.5},
		{"a larger one of the slice above does not", "0::/a.slice/weir.service\n", root2,
			map[string]string{"a.slice/weir.service/cpu.max": "50000 100000", "a.slice/cpu.max": "400000 100000"}, 0.5},
		{"a container with a cgroup namespace", "0::/\n",
			"600 590 0:22 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n", map[string]string{"cpu.max": "200000 100000"}, 2},
		{"a container with the host's namespace", "0::/kubepods.slice/pod1/c1\n",
			"600 590 0:22 /kubepods.slice/pod1/c1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n", map[string]string{"cpu.max": "25000 100000"}, 0.25},
		{"a group outside of the namespace", "0::/../other\n", root2, map[string]string{"cpu.max": "200000 100000", "other/cpu.max": "1000 100000"}, 2},
		{"version 1, as Kubernetes had it", "4:cpuacct,cpu:/kubepods/pod1/c1\n3:memory:/x\n0::/y\n", root1,
			map[string]string{"cpu,cpuacct/kubepods/pod1/c1/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/kubepods/pod1/c1/cpu.cfs_period_us": "100000\n",
				"cpu,cpuacct/kubepods/pod1/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/kubepods/pod1/cpu.cfs_period_us": "100000\n"}, 0.5},
		{"version 1 in a container without a cgroup namespace", "4:cpu,cpuacct:/docker/0123\n",
			"9 8 0:29 /docker/0123 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n",
			map[string]string{"cpu,cpuacct/cpu.cfs_quota_us": "75000", "cpu,cpuacct/cpu.cfs_period_us": "50000"}, 1.5},
		{"a mount point with a space", "0::/\n", "600 590 0:22 / /sys/fs/cgroup/a\\040b rw - cgroup2 cgroup rw\n", map[string]string{"a b/cpu.max": "200000 100000"}, 2},
		{"files that are damaged", "0::/a\nnonsense\n", "x\n1 2 3 - cgroup2\n" + root2, map[string]string{"a/cpu.max": "lots"}, 0},
		{"no cgroups at all", "", "", nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fsys := fstest.MapFS{
				"proc/self/cgroup":    {Data: []byte(tt.groups)},
				"proc/self/mountinfo": {Data: []byte(tt.mounts)},
			}
			for name, content := range tt.files {
				fsys["sys/fs/cgroup/"+name] = &fstest.MapFile{Data: []byte(content)}
			}
			if got := cpuQuota(fsys); got != tt.want {
				t.Errorf("%v cores, want %v", got, tt.want)
			}
		})
	}
	if got := cpuQuota(fstest.MapFS{}); got != 0 {
		t.Errorf("%v cores on a system without /proc", got)
	}
}

// procWith is a process whose threads have the given run delays.
func procWith(delays map[string]string) fs.FS {
	fsys := fstest.MapFS{}
	for thread, delay := range delays {
		fsys["proc/self/task/"+thread+"/schedstat"] = &fstest.MapFile{Data: []byte("1 " + delay + " 1\n")}
	}
	return fsys
}

func TestRunDelaysAreSummedByThread(t *testing.T) {
	before := runDelays(procWith(map[string]string{"10": "1000", "11": "500", "12": "7"}))
	after := runDelays(procWith(map[string]string{"10": "1500", "11": "20", "13": "40"})) // 11 is a new thread, 12 has ended
	if got := waited(before, after); got != 500+20+40 {
		t.Errorf("%v waited, want 560ns", got)
	}
	if got := waited(nil, runDelays(fstest.MapFS{})); got != 0 {
		t.Errorf("%v waited where the system does not tell", got)
	}
}

// CPU use of other programs does not count: only the time that this process
// runs or waits for a core counts.
func TestCPUShareIsOfThisProcess(t *testing.T) {
	idle := &cpuMeter{fsys: procWith(map[string]string{"1": "0"})}
	if share, cores, err := idle.share(time.Now()); err != nil || share != 0 || cores <= 0 {
		t.Fatalf("first reading %v of %v cores, %v; want none yet", share, cores, err)
	}
	start := time.Now().Add(-time.Hour)
	idle.at = start
	if share, _, err := idle.share(time.Now()); err != nil || share > 0.01 {
		t.Errorf("share %v, %v after an hour of nothing", share, err)
	}

	waits := &cpuMeter{fsys: procWith(map[string]string{"1": "0"})}
	if _, _, err := waits.share(start); err != nil {
		t.Fatal(err)
	}
	waits.fsys = procWith(map[string]string{"1": "3600000000000000"})
	if share, _, err := waits.share(time.Now()); err != nil || share != 1 {
		t.Errorf("share %v, %v of a process whose threads always wait; want 1", share, err)
	}

	real := &cpuMeter{fsys: os.DirFS("/")}
	if _, _, err := real.share(time.Now()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(50 * time.Millisecond); time.Now().Before(deadline); { // something to measure
	}
	if share, _, err := real.share(time.Now()); err != nil || share <= 0 || share > 1 {
		t.Errorf("share %v, %v after 50 ms of work", share, err)
	}
}
