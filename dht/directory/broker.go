package directory

import (
	"time"

	"weir/dht/holder"
)

// Broker mode: the listed servers hold everything.
const Broker Mode = "broker"

type broker struct{ listed }

func newBroker(v View) Directory { return &broker{listed{v}} }

func (b *broker) Peek(now time.Time, topic holder.Topic) Holders {
	h, _ := b.Holders(now, topic)
	return h
}

func (b *broker) Holds() bool { return b.isListed() }
