package cmdline

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
)

// NoArguments refuses arguments to a command that takes none.
func NoArguments(c *cli.Context) error {
	if c.Args().Present() {
		return BadInput(fmt.Errorf("%s takes no argument %q; see %s --help", c.Command.HelpName, c.Args().First(), c.Command.HelpName))
	}
	return nil
}

// Env is the environment variable of a flag.
func Env(name string) []string { return []string{"WEIR_" + name} }

// DefaultDataDir is the directory weir below XDG_DATA_HOME, by default
// ~/.local/share; without a home directory it is weir-data.
func DefaultDataDir() string {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "weir")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "weir")
	}
	return "weir-data"
}
