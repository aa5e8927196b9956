// Package config reads a YAML file of settings, whose keys are the names of
// flags, and reports every mistake in it by line and column.
//
// Its input is the text and the flags; its output is entries, the values of
// flags as text, or [Faults]. It starts no goroutines.
package config
