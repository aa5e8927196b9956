package main

import (
	"strings"
	"time"
)

// Sources of a setting, from the weakest to the strongest.
const (
	fromDefault     = "default"
	fromFile        = "file"
	fromEnvironment = "environment"
	fromFlag        = "flag"
)

// A setting is one flag of weir node and the value that is in effect.
type setting struct {
	Name   string   `json:"name"`
	Values []string `json:"values"` // secrets hidden; of a flag that cannot be repeated at most one
	Source string   `json:"source"` // default, file, environment or flag
	Where  string   `json:"where,omitempty"`
	// Pending is what the file says since it was read again, of a setting that
	// only a restart changes.
	Pending []string `json:"pending,omitempty"`

	Raw []string `json:"-"` // as it is
}

// Outcomes of reading the configuration again.
const (
	reloadApplied = "applied"
	reloadRefused = "refused" // it has mistakes: nothing is applied
	reloadFailed  = "failed"  // it is applied, but for a part's files
)

// A reloadReport is what came of reading the configuration once more.
type reloadReport struct {
	At      time.Time `json:"at"`
	Outcome string    `json:"outcome"` // applied, refused or failed
	Changed []string  `json:"changed"` // names of settings that are in force now
	Restart []string  `json:"restart"` // … that have changed and need a restart
	Errors  []string  `json:"errors"`
}

// String says it in one line.
func (r reloadReport) String() string {
	var parts []string
	switch {
	case r.Outcome == reloadRefused:
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

// A configReply is what GET /api/v1/config returns.
type configReply struct {
	File     string        `json:"file,omitempty"` // "": none
	Settings []setting     `json:"settings"`
	Reload   *reloadReport `json:"reload,omitempty"` // the last one
}
