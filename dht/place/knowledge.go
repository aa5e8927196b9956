package place

import "weir/dht/holder"

// Knowledge is what a seeker knows of one topic by its own memory and from its
// holders, before it asks them and after.
type Knowledge struct {
	Topic    holder.Topic
	Self     bool // the seeker is a holder itself
	Everyone bool // so is every node that is known: the network is small
	LookedUp bool // and it was searched for more of them
	Others   int  // holders beside the seeker
	Near     bool // there are other topics to turn to; see [Query.Near]

	// WarmedUp means that the seeker has held everything for so long that every
	// publisher has had the time to tell it. Until then its own memory is no
	// answer.
	WarmedUp bool
	Own      int // records of others that it holds itself
	Held     int // records, as whoever holds most says
	Answers  int // of other holders
}

// OwnWillDo reports whether nobody need be asked.
func (k Knowledge) OwnWillDo() bool {
	alone := k.Others == 0 && !Exact(k.Topic)
	return k.Everyone && (alone || k.Own > 0 && k.WarmedUp)
}

// LookUp reports whether the network is to be searched for other holders. It
// takes long, so there must be nothing to lose by it: nobody has answered, or
// nobody knows of what is there or not.
func (k Knowledge) LookUp() bool {
	lost := k.Answers == 0 && !k.Self && !k.Near
	unknown := k.Held == 0 && Exact(k.Topic)
	return lost || unknown && !(k.Everyone && k.LookedUp)
}

// Nothing reports whether no holder has answered, the seeker included.
func (k Knowledge) Nothing() bool { return k.Answers == 0 && !k.Self }
