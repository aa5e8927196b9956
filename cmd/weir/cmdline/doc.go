// Package cmdline is what weir's programs have in common below their commands: how
// arguments become a command and its flags, what was meant by a word that there is
// not, completion in shells, the manual, exit codes.
//
// In comes a cli.App with its commands, and what was typed; out come an error with
// an exit code, or text. It starts no goroutines.
package cmdline
