package cmdline

import "github.com/urfave/cli/v2"

// Exit codes.
const (
	ExitFailure    = 1
	ExitConnection = 2 // no connection to the server
	ExitInput      = 3 // an argument, or a file named there, is wrong
	ExitRefused    = 4 // by the server
)

// BadInput is err with the exit code of wrong input by the user.
func BadInput(err error) error { return cli.Exit(err.Error(), ExitInput) }
