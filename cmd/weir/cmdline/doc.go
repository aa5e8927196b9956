// Package cmdline is the part that weir's programs share below their commands:
// parsing arguments into a command and its flags, suggestions for unknown
// words, completion in shells, the manual, exit codes.
//
// Its input is a cli.App with its commands, and the user's arguments; its
// output is an error with an exit code, or text. It starts no goroutines.
package cmdline
