package rights

import "errors"

// Errors of keys and secrets that an operator configured. Other errors wrap
// these, so that a command that can make keys and secrets can explain how.
var (
	ErrNoKeySet     = errors.New(`no JWK set: want JSON as {"keys":[…]}`)
	ErrPrivateKey   = errors.New("it is a private key: give nodes the public set") // where a set of public keys is wanted
	ErrNoPrivateKey = errors.New("no private key")
	// ErrTicketSecrets is wrapped by every error of a file of ticket secrets.
	ErrTicketSecrets = errors.New("no secrets for tickets")
)

// A secretsError is an ErrTicketSecrets with its own text.
type secretsError string

func (e secretsError) Error() string        { return string(e) }
func (e secretsError) Is(target error) bool { return target == ErrTicketSecrets }
