package place

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
)

// ErrUnanswered means that the holders required for an answer did not reply:
// neither yes nor no. Every such error is an [*Unanswered].
var ErrUnanswered = errors.New("those who have to know did not answer")

// A Hearing counts the nodes that an answer rests on: how many were required,
// and which of them were silent. "No node has it" is an answer only if the
// hearing is enough; silence proves nothing.
type Hearing struct {
	Holders int `json:"holders"` // required
	Heard   int `json:"heard"`   // that answered
	// Lacking is how many more have to answer before "no node has it" is an
	// answer.
	Lacking int       `json:"lacking,omitempty"`
	Silent  []Silence `json:"silent,omitempty"` // asked without an answer
}

// Abandoned is the reason for a node whose answer was not waited for, because
// others had sufficed.
const Abandoned = "abandoned"

// Hear is the hearing of a question to which must of holders have to answer,
// heard have, and silent did not. Abandoned nodes do not count as silent if the
// others have sufficed.
func Hear(holders, heard, must int, silent []Silence) Hearing {
	h := Hearing{Holders: holders, Heard: heard, Lacking: max(0, max(must, 1)-heard), Silent: silent}
	if h.Lacking == 0 {
		h.Silent = slices.DeleteFunc(slices.Clone(silent), func(s Silence) bool { return s.Err == Abandoned })
	}
	return h.sorted()
}

// Silence is a holder that did not answer, and why, as far as is known.
type Silence struct {
	Node peer.ID `json:"node"`
	Err  string  `json:"err,omitempty"`
}

// Enough reports whether the answers suffice to conclude that there is nothing.
func (h Hearing) Enough() bool { return h.Holders > 0 && h.Lacking == 0 }

// String names the nodes that did not answer; it is empty if all did.
func (h Hearing) String() string {
	switch silent := len(h.Silent); {
	case h.Holders == 0:
		return "no holder is known"
	case silent == 0 && h.Lacking > 0:
		return fmt.Sprintf("only %d of %d holders were heard", h.Heard, h.Holders)
	case silent == 0:
		return ""
	case h.Holders == 1:
		return "the only holder did not answer" + h.why()
	default:
		return fmt.Sprintf("%d of %d holders did not answer%s", silent, h.Holders, h.why())
	}
}

// why is the most frequent reason among the silent, in brackets.
func (h Hearing) why() string {
	reasons := make(map[string]int)
	for _, s := range h.Silent {
		if s.Err != "" {
			reasons[s.Err]++
		}
	}
	reason, _ := MostFrequent(reasons)
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

// And is the hearing of two questions, both of which have to be answered.
func (h Hearing) And(g Hearing) Hearing {
	h.Holders += g.Holders
	h.Heard += g.Heard
	h.Lacking += g.Lacking
	h.Silent = append(slices.Clone(h.Silent), g.Silent...)
	return h.sorted()
}

// sorted puts the silent in a fixed order, each once.
func (h Hearing) sorted() Hearing {
	slices.SortFunc(h.Silent, func(a, b Silence) int { return cmp.Or(cmp.Compare(a.Node, b.Node), strings.Compare(a.Err, b.Err)) })
	h.Silent = slices.CompactFunc(h.Silent, func(a, b Silence) bool { return a.Node == b.Node })
	return h
}

// Unanswered is the error of a question to which too few of the required nodes
// have answered.
type Unanswered struct {
	Topic   holder.Topic
	Hearing Hearing
	// Rival is a node that is reported to publish the stream, and does not
	// answer; or "".
	Rival peer.ID
}

// Error names the topic, and the nodes that did not answer.
func (e *Unanswered) Error() string { return fmt.Sprintf("%s: %s", e.Topic, e.Words()) }

// Words names the nodes that did not answer.
func (e *Unanswered) Words() string {
	if e.Rival != "" {
		return fmt.Sprintf("node %s is said to publish the stream, and does not answer", e.Rival)
	}
	return e.Hearing.String()
}

// Is makes it an ErrUnanswered.
func (e *Unanswered) Is(target error) bool { return target == ErrUnanswered }
