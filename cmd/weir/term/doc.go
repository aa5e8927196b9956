// Package term prints for people and for programs: tables that fit the terminal,
// progress lines, JSON, quantities with their units.
//
// In come values, many of them other nodes' and clients' words; out go lines in
// which nothing steers the terminal. The only goroutine is a [Progress]'s own, and
// its Close ends it.
package term
