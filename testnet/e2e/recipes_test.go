package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"weir/testnet/printed"
)

// A recipe is a block of commands of recipes.md. Its info string says how to
// run it: needs=CLIENT, a client that Debian may not have; goes-on=TEXT, the
// output once it works, for a command that does not end; starts=COMMAND, a
// command to run meanwhile, to its end.
type recipe struct {
	section, needs, goesOn, starts string
	lines                          []string
}

func recipes(markdown string) []recipe {
	var all []recipe
	section := ""
	for _, m := range regexp.MustCompile("(?ms)^#+ ([^\n]+)$|^```sh([^\n]*)\n(.*?)^```$").FindAllStringSubmatch(markdown, -1) {
		if m[1] != "" {
			section = m[1]
			continue
		}
		info, r := m[2], recipe{section: section, lines: strings.Split(strings.TrimSpace(m[3]), "\n")}
		info, r.starts, _ = strings.Cut(info, " starts=")
		for word := range strings.FieldsSeq(info) {
			switch name, value, _ := strings.Cut(word, "="); name {
			case "needs":
				r.needs = value
			case "goes-on":
				r.goesOn = value
			}
		}
		all = append(all, r)
	}
	return all
}

// hasClient are checks for clients that Debian 12 lacks.
var hasClient = map[string]string{
	"ffmpeg-whip":    "ffmpeg -hide_banner -muxers | grep -q ' whip '",
	"whipclientsink": "gst-inspect-1.0 --exists whipclientsink",
}

// Every command of the recipes runs unchanged, and media flows.
func TestRecipesRun(t *testing.T) {
	t.Parallel() // it mostly waits for media
	const docs = "../../.github/docs"
	text, err := os.ReadFile(docs + "/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	all := recipes(string(text))
	if len(all) < 10 || all[0].lines[0] != "bin/weir node --dev" {
		t.Fatalf("found the recipes %+v", all)
	}
	absolute, err := filepath.Abs(docs)
	if err != nil {
		t.Fatal(err)
	}
	scratch, dir := t.TempDir(), t.TempDir()
	shell, err := printed.NewShell(weir, dir, scratch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shell.Close)
	if err := os.Mkdir(filepath.Join(dir, ".github"), 0o755); err != nil {
		t.Fatal(err)
	}
	// Debian's own Python has its bindings of GStreamer.
	for to, from := range map[string]string{filepath.Join(dir, ".github", "docs"): absolute, filepath.Join(scratch, "bin", "python3"): "/usr/bin/python3"} {
		if err := os.Symlink(from, to); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	must := func(t *testing.T, line string) string {
		t.Helper()
		out, err := shell.Run(ctx, line)
		if err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		return out
	}
	start := func(t *testing.T, line, says string) *printed.Job {
		t.Helper()
		job, err := shell.Start(line)
		if err == nil {
			err = job.Await(ctx, says)
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return job
	}
	if shell.Isolated() {
		// GStreamer's ICE ignores loopback devices.
		must(t, "ip link add lan type veth peer name lan2 && ip addr add 10.77.0.1/24 dev lan && ip link set lan up && ip link set lan2 up")
	}
	node := start(t, all[0].lines[0], "node is ready")
	t.Cleanup(func() {
		if err := node.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Run("pages", func(t *testing.T) {
		for _, m := range regexp.MustCompile("`(http://127.0.0.1:8080/[a-z/]*)`").FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(m[1], "/whip/") {
				must(t, "curl --silent --fail --output /dev/null "+m[1])
			}
		}
	})
	for i, r := range all[1:] {
		t.Run(fmt.Sprintf("%s %d", r.section, i), func(t *testing.T) {
			if r.needs != "" {
				if _, err := shell.Run(ctx, hasClient[r.needs]); err != nil {
					for _, line := range r.lines {
						if out, err := exec.Command("bash", "-n", "-c", line).CombinedOutput(); err != nil {
							t.Errorf("%s: %v: %s", line, err, out)
						}
					}
					t.Skipf("this machine has no %s", r.needs)
				}
			}
			if r.starts != "" {
				job := start(t, r.starts, "kbit/s")
				defer func() {
					if err := job.Stop(); err != nil {
						t.Error(err)
					}
				}()
			}
			for _, line := range r.lines {
				if r.goesOn == "" {
					must(t, line)
					continue
				}
				job := start(t, line, r.goesOn)
				if url := regexp.MustCompile(`http://\S+/whip/\S+`).FindString(line); url != "" {
					must(t, "bin/weir view --wait 20s --duration 1s "+strings.Replace(url, "/whip/", "/whep/", 1))
				} else {
					eventually(t, "it gets media", func() bool { return viewerHas(t, must(t, "bin/weir sessions --json")) > 100 })
				}
				if err := job.Stop(); err != nil {
					t.Error(err)
				}
			}
			for _, line := range r.lines {
				file := regexp.MustCompile(`\S+\.webm$`).FindString(line)
				if file == "" {
					continue
				}
				frames := must(t, "ffprobe -v error -count_frames -select_streams v -show_entries stream=nb_read_frames -of csv=p=0 "+file)
				if n := strings.Trim(frames, ",\n "); n == "" || n == "0" || n == "N/A" {
					t.Errorf("%s has %q frames of video", file, frames)
				}
			}
		})
	}
}

// viewerHas is the number of packets sent to the viewer in a list of sessions.
func viewerHas(t *testing.T, list string) int64 {
	t.Helper()
	var all []struct {
		Kind    string
		Packets int64
	}
	if err := json.Unmarshal([]byte(list), &all); err != nil {
		t.Fatalf("%v: %s", err, list)
	}
	for _, s := range all {
		if s.Kind == "whep" {
			return s.Packets
		}
	}
	return 0
}
