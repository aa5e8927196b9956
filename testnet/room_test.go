package testnet

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
)

func TestRoom(t *testing.T) {
	small := Room{Memory: 4 << 30, Files: 100_000, FilesEach: 1024, Threads: 32_768}
	for _, tt := range []struct {
		name string
		room Room
		n    int
		want string // a part of the error; "": no error
	}{
		{"a few", small, 5, ""},
		{"as many as fit", small, 100, ""},
		{"a thousand", small, 1000, "1000 more nodes need about 36 GB of memory, and this machine has 3276 MB to spare (for about"},
		{"too few descriptors each", Room{FilesEach: 64}, 60, "80 of descriptors each, and this machine has 6"},
		{"too few descriptors", Room{Files: 1000}, 40, "descriptors"},
		{"too few threads", Room{Threads: 1000}, 100, "threads"},
		{"a system that tells nothing", Room{}, 100_000, ""},
	} {
		err := tt.room.check(tt.n, tt.n)
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrInput) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "--force")) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}

func TestReadRoom(t *testing.T) {
	got := readRoom(fstest.MapFS{
		"proc/meminfo":                {Data: []byte("MemTotal:       24684092 kB\nMemFree:        15683192 kB\nMemAvailable:   23697316 kB\n")},
		"proc/sys/fs/file-nr":         {Data: []byte("1962\t0\t2466177\n")},
		"proc/sys/kernel/pid_max":     {Data: []byte("32768\n")},
		"proc/sys/kernel/threads-max": {Data: []byte("192731\n")},
	})
	if want := (Room{Memory: 23697316 << 10, Files: 2466177 - 1962, Threads: 32768}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := readRoom(fstest.MapFS{"proc/meminfo": {Data: []byte("MemAvailable: lots kB\n")}}); got != (Room{}) {
		t.Errorf("%+v of a system that does not tell", got)
	}
	if r := MeasureRoom(); r.FilesEach == 0 {
		t.Error("this machine's limit of descriptors is not read")
	}
}
