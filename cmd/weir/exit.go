package main

import "github.com/urfave/cli/v2"

// Exit codes.
const (
	exitFailure    = 1
	exitConnection = 2 // no connection to the server
	exitInput      = 3 // what was typed, or a file named there, is wrong
	exitRefused    = 4 // by the server
)

// badInput is err with the exit code of what the user typed.
func badInput(err error) error { return cli.Exit(err.Error(), exitInput) }
