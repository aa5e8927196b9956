package place

import "weir/dht/holder"

// Knowledge is a seeker's knowledge of one topic from its own memory and from
// its holders, before it asks them and after.
type Knowledge struct {
	Topic    holder.Topic
	Self     bool // the seeker is a holder itself
	Everyone bool // so is every known node: the network is small
	LookedUp bool // the network was searched for more of them
	Others   int  // holders beside the seeker, silent ones included
	Near     bool // there are other topics to ask; see [Query.Near]

	// WarmedUp means that the seeker has held everything for so long that every
	// publisher has had the time to send it its record. Until then its own
	// memory is no answer.
	WarmedUp bool
	Own      int // records of others in its own table
	Held     int // records, as reported by the holder of most
	Answers  int // of other holders
}

// OwnWillDo reports whether no other holder need be asked.
func (k Knowledge) OwnWillDo() bool {
	alone := k.Others == 0 && !Exact(k.Topic)
	return k.Everyone && (alone || k.Own > 0 && k.WarmedUp)
}

// LookUp reports whether the network is to be searched for other holders. The
// search takes long, so it is done only if nothing is lost by it: no holder has
// answered, or none has a record of something that either exists or does not.
func (k Knowledge) LookUp() bool {
	lost := k.Answers == 0 && !k.Self && !k.Near
	unknown := k.Held == 0 && Exact(k.Topic)
	return lost || unknown && !(k.Everyone && k.LookedUp)
}

// Nothing reports whether no holder has answered, the seeker included.
func (k Knowledge) Nothing() bool { return k.Answers == 0 && !k.Self }
