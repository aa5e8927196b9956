package auth

import (
	"errors"
	"fmt"

	"weir/sfu/rights"
)

// advice is the text to add to an error of a package that does not know the
// flags and commands.
var advice = []struct {
	is  error
	add string
}{
	{rights.ErrNoKeySet, ", such as weir token key writes"},
	{rights.ErrPrivateKey, " that weir token key prints"},
	{rights.ErrNoPrivateKey, ": want a file that weir token key made"},
	{rights.ErrTicketSecrets, "; weir token secret makes one"},
}

// advised returns err with its advice appended, if there is any.
func advised(err error) error {
	for _, a := range advice {
		if errors.Is(err, a.is) {
			return fmt.Errorf("%w%s", err, a.add)
		}
	}
	return err
}
