package rights

import "errors"

// Why what an operator gives is not taken. Errors wrap these, so that whoever
// knows how keys and secrets are made can say so.
var (
	ErrNoKeySet     = errors.New(`no JWK set: want JSON as {"keys":[…]}`)
	ErrPrivateKey   = errors.New("it is a private key: give nodes the public set") // where a set of public keys is wanted
	ErrNoPrivateKey = errors.New("no private key")
	// ErrTicketSecrets is what every error of a file of secrets for tickets is.
	ErrTicketSecrets = errors.New("no secrets for tickets")
)

// A secretsError is an ErrTicketSecrets with words of its own.
type secretsError string

func (e secretsError) Error() string        { return string(e) }
func (e secretsError) Is(target error) bool { return target == ErrTicketSecrets }
