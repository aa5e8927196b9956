package whip

// endWords maps the reasons why sessions end, by the beginning of the sentence
// for people, to one word for programs.
var endWords = []struct{ begins, word string }{
	{"deleted by the client", "deleted"},
	{"the client fell silent", "silent"},
	{"the client closed", "closed"},
	{"the stream has ended", "stream_ended"},
	{"this node is closing", "node_ended"},
	{"no media connection", "never_connected"},
	{"no connectivity check", "no_consent"},
	{"its name was taken", "name_taken"},
	{"ended by the operator", "operator"},
	{"its right has ended: its token", "token_expired"},
	{"its right has ended: the key", "token_key_removed"},
	{"it sent nothing", "replaced"}, // by a new publisher of its name
	{"it was replaced", "replaced"},
}

// endWord returns the word for the reason why a session ends.
func endWord(why string) string {
	for _, w := range endWords {
		if len(why) >= len(w.begins) && why[:len(w.begins)] == w.begins {
			return w.word
		}
	}
	return "other"
}

// EndWords lists all words for the reasons why sessions end.
func EndWords() []string {
	words := []string{"other"}
	for _, w := range endWords {
		words = append(words, w.word)
	}
	return words
}

// endedSessions remembers the last maxEnded sessions that ended, so that a late
// DELETE of one of them is told apart from a DELETE of an unknown session.
type endedSessions struct {
	ids  map[string]bool // by session ID: deleted by its client
	ring []string
	next int
}

const maxEnded = 4096

// add records that a session has ended, or will.
func (t *endedSessions) add(id string) {
	if _, known := t.ids[id]; known {
		return
	}
	if t.ids == nil {
		t.ids = map[string]bool{}
	}
	if len(t.ring) < maxEnded {
		t.ring = append(t.ring, id)
	} else {
		delete(t.ids, t.ring[t.next])
		t.ring[t.next] = id
		t.next = (t.next + 1) % maxEnded
	}
	t.ids[id] = false
}

// deleted records that the client itself ended the session.
func (t *endedSessions) deleted(id string) {
	t.add(id)
	t.ids[id] = true
}
