package cmdline

import "github.com/urfave/cli/v2"

// Exit codes.
const (
	ExitFailure    = 1
	ExitConnection = 2 // no connection to the server
	ExitInput      = 3 // what was typed, or a file named there, is wrong
	ExitRefused    = 4 // by the server
)

// BadInput is err with the exit code of what the user typed.
func BadInput(err error) error { return cli.Exit(err.Error(), ExitInput) }
