// Package config reads a file of settings whose keys are the names of flags, YAML,
// and points at every mistake in it by line and column.
//
// In come the text and the flags; out go entries, the values of flags as text, or
// [Faults]. It starts no goroutines.
package config
