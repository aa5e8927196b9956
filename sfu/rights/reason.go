package rights

import "fmt"

// A Reason is a word for why a client may not do what it requests, or may no
// longer do it. Programs may branch on it.
type Reason string

// Reasons of rejected tokens.
const (
	NoToken        Reason = "token-missing"
	TwoTokens      Reason = "token-twice"         // one in the header, another in the URL
	TooLarge       Reason = "token-too-large"     // more than MaxToken bytes
	Malformed      Reason = "token-malformed"     // not a JWT, or not one for weir
	NoAlgorithm    Reason = "token-alg-none"      // not signed
	WrongAlgorithm Reason = "token-algorithm"     // not the algorithm of its key
	UnknownKey     Reason = "token-unknown-key"   // kid
	BadSignature   Reason = "token-signature"     //
	Expired        Reason = "token-expired"       //
	NotYet         Reason = "token-not-yet-valid" //
	OtherNetwork   Reason = "token-other-network" // aud
	Used           Reason = "token-used"          // a one-time token that was used before
	OtherStream    Reason = "token-other-stream"  //
	OtherRight     Reason = "token-other-right"   // for example to view, and the client publishes
	TooMany        Reason = "token-sessions"      // its limit of concurrent sessions is reached
	KeyRemoved     Reason = "token-key-removed"   // the key is not in force any more
	BadTicket      Reason = "ticket-not-trusted"  // another node redirected the client, without a right that this node trusts
	HookRefused    Reason = "hook-refused"        // the operator's hook refused
	HookFailed     Reason = "hook-failed"         // it gave no usable answer
	HookBusy       Reason = "hook-busy"           // too many requests to it are under way
	NoKeys         Reason = "keys-unavailable"    // no keys have been read yet
	NoMemory       Reason = "token-memory"        // the table of used one-time tokens is full
)

// Reasons returns all reasons.
func Reasons() []Reason {
	return []Reason{
		NoToken, TwoTokens, TooLarge, Malformed, NoAlgorithm, WrongAlgorithm, UnknownKey, BadSignature, Expired, NotYet, OtherNetwork, Used,
		OtherStream, OtherRight, TooMany, KeyRemoved, BadTicket, HookRefused, HookFailed, HookBusy, NoKeys, NoMemory,
	}
}

// A Kind classifies refusals by the client's remedy.
type Kind int

// Values of Kind, each with the HTTP status that fits.
const (
	Unauthorized    Kind = iota // 401: retry with another token
	Forbidden                   // 403: the token is valid, but not for this
	TooManySessions             // 429: the token's limit of concurrent sessions is reached
	Unknown                     // 503: the right could not be determined
)

// Kind returns the kind of a refusal for r.
func (r Reason) Kind() Kind {
	switch r {
	case OtherStream, OtherRight, HookRefused, BadTicket:
		return Forbidden
	case TooMany:
		return TooManySessions
	case HookFailed, HookBusy, NoKeys, NoMemory:
		return Unknown
	}
	return Unauthorized
}

// A Refusal is why a client may not do what it requests. Its text never
// contains the token or a part of it.
type Refusal struct {
	Reason Reason
	Detail string // a sentence for the client: what is wrong, and what to do
	// Bare means that the client came without a token: it may not know that one
	// is needed.
	Bare bool
}

// Error returns Detail.
func (r *Refusal) Error() string { return r.Detail }

// Kind returns the kind of the refusal.
func (r *Refusal) Kind() Kind {
	if r.Bare && r.Reason.Kind() == Forbidden {
		return Unauthorized
	}
	return r.Reason.Kind()
}

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}
