// Package term prints for people and for programs: tables that fit the
// terminal, progress lines, JSON, quantities with their units.
//
// Its input is values, many of them from other nodes and clients; its output is
// lines without control characters for the terminal. The only goroutine is that
// of a progress line, and its Close ends it.
package term
