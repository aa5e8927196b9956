package rights

import "fmt"

// A Reason says in one word why a client may not do what it asks for, or why it
// may no longer. Programs may branch on it.
type Reason string

// Of tokens that let nobody in.
const (
	NoToken        Reason = "token-missing"
	TwoTokens      Reason = "token-twice"         // one in the header, another in the URL
	TooLarge       Reason = "token-too-large"     // more than MaxToken bytes
	Malformed      Reason = "token-malformed"     // no JWT, or not one of weir's
	NoAlgorithm    Reason = "token-alg-none"      // not signed
	WrongAlgorithm Reason = "token-algorithm"     // signed in a way that its key is not for
	UnknownKey     Reason = "token-unknown-key"   // kid
	BadSignature   Reason = "token-signature"     //
	Expired        Reason = "token-expired"       //
	NotYet         Reason = "token-not-yet-valid" //
	OtherNetwork   Reason = "token-other-network" // aud
	Used           Reason = "token-used"          // it was good once
	OtherStream    Reason = "token-other-stream"  //
	OtherRight     Reason = "token-other-right"   // to view, and the client publishes
	TooMany        Reason = "token-sessions"      // as many at a time as it allows
	KeyRemoved     Reason = "token-key-removed"   // the key is not in force any more
	BadTicket      Reason = "ticket-not-trusted"  // another node sent the client, with no right that is believed
	HookRefused    Reason = "hook-refused"        // the operator's hook said no
	HookFailed     Reason = "hook-failed"         // it said nothing that can be used
	HookBusy       Reason = "hook-busy"           // as many questions are with it as may be
	NoKeys         Reason = "keys-unavailable"    // no keys have been read yet
	NoMemory       Reason = "token-memory"        // too many tokens that are good once are remembered
)

// Reasons are all of them.
func Reasons() []Reason {
	return []Reason{
		NoToken, TwoTokens, TooLarge, Malformed, NoAlgorithm, WrongAlgorithm, UnknownKey, BadSignature, Expired, NotYet, OtherNetwork, Used,
		OtherStream, OtherRight, TooMany, KeyRemoved, BadTicket, HookRefused, HookFailed, HookBusy, NoKeys, NoMemory,
	}
}

// A Kind is what a client can do about a refusal.
type Kind int

// The kinds there are, with the status of HTTP that fits.
const (
	Unauthorized Kind = iota // 401: come with another token
	Forbidden                // 403: the token is good, but not for this
	Crowded                  // 429: the token is in use as often as it may be
	Unknown                  // 503: it could not be found out
)

// Kind is what a client refused for r can do.
func (r Reason) Kind() Kind {
	switch r {
	case OtherStream, OtherRight, HookRefused, BadTicket:
		return Forbidden
	case TooMany:
		return Crowded
	case HookFailed, HookBusy, NoKeys, NoMemory:
		return Unknown
	}
	return Unauthorized
}

// A Refusal is why a client may not do what it asks for. It never has the token,
// or a part of it, in its text.
type Refusal struct {
	Reason Reason
	Detail string // a sentence for the client: what is wrong, and what to do
	// Bare means that the client came without a token: it may not know that one
	// is needed.
	Bare bool
}

// Error is the sentence.
func (r *Refusal) Error() string { return r.Detail }

// Kind is what the client can do.
func (r *Refusal) Kind() Kind {
	if r.Bare && r.Reason.Kind() == Forbidden {
		return Unauthorized
	}
	return r.Reason.Kind()
}

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}
