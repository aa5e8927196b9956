package api

import (
	"strings"
	"time"
)

// Sources of a setting, from the weakest to the strongest.
const (
	FromDefault     = "default"
	FromFile        = "file"
	FromEnvironment = "environment"
	FromFlag        = "flag"
)

// A Setting is one flag of weir node and the value that is in effect.
type Setting struct {
	Name   string   `json:"name"`
	Values []string `json:"values"` // secrets hidden; at most one if the flag cannot be repeated
	Source string   `json:"source"` // default, file, environment or flag
	Where  string   `json:"where,omitempty"`
	// Pending is the value in the reloaded file of a setting that only a
	// restart changes.
	Pending []string `json:"pending,omitempty"`

	Raw []string `json:"-"` // with secrets
}

// Outcomes of a reload of the configuration.
const (
	ReloadApplied = "applied"
	ReloadRefused = "refused" // it has mistakes: nothing is applied
	ReloadFailed  = "failed"  // it is applied, except for a part's files
)

// A Reload is the outcome of one reload of the configuration.
type Reload struct {
	At      time.Time `json:"at"`
	Outcome string    `json:"outcome"` // applied, refused or failed
	Changed []string  `json:"changed"` // names of settings now in force with new values
	Restart []string  `json:"restart"` // … that have changed and need a restart
	Errors  []string  `json:"errors"`
}

// String is the outcome in one line.
func (r Reload) String() string {
	var parts []string
	switch {
	case r.Outcome == ReloadRefused:
	case len(r.Changed) > 0:
		parts = append(parts, "changed: "+strings.Join(r.Changed, ", "))
	case len(r.Restart) == 0:
		parts = append(parts, "no setting has changed")
	}
	if len(r.Restart) > 0 {
		parts = append(parts, "needs a restart: "+strings.Join(r.Restart, ", "))
	}
	return strings.Join(append(parts, r.Errors...), "; ")
}

// A Config is what GET /api/v1/config returns.
type Config struct {
	File     string    `json:"file,omitempty"` // "": none
	Settings []Setting `json:"settings"`
	Reload   *Reload   `json:"reload,omitempty"` // the last one
}
