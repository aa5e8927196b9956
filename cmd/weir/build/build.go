// Package build gives the version and origin of this build of weir.
package build

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"
)

// Release is the version of this build.
func Release() string {
	info, ok := debug.ReadBuildInfo()
	if ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "0.1.0-dev"
}

// Info is the source that a binary was built from.
type Info struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"` // "" if it was not built from a repository
	Modified bool   `json:"modified"`         // built with changes that were not committed
	Time     string `json:"time,omitempty"`   // of the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Of reads the build information from the linker.
func Of(info *debug.BuildInfo) Info {
	b := Info{Version: Release(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info == nil {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		case "vcs.time":
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
				b.Time = t.UTC().Format(time.RFC3339)
			}
		}
	}
	return b
}

// String is the build in one line.
func (b Info) String() string {
	commit := "unknown commit"
	if b.Commit != "" {
		commit = "commit " + b.Commit[:min(len(b.Commit), 12)]
	}
	if b.Modified {
		commit += " with changes"
	}
	if b.Time != "" {
		commit += " of " + b.Time
	}
	return fmt.Sprintf("weir %s, %s, %s, %s", b.Version, commit, b.Go, b.Platform)
}
