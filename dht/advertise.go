package dht

import (
	"context"
	"reflect"
	"slices"
	"time"

	"weir/capacity"
	"weir/dht/holder"
)

const (
	keepalive = holder.Keepalive
	// indexKeepalive is how often a record in the index of regions is renewed,
	// whatever its node's load.
	indexKeepalive = 20 * time.Second
	// streamGap is the least time between two records of one stream when
	// nothing but the node's load has changed: a node may carry many.
	streamGap = 2 * time.Second
)

// A claim is one record to be published, without what only publishing fills
// in.
type claim struct {
	topic  Topic
	record capacity.Record
}

// An advertiser decides when to publish which record: at once what is new or
// gone, soon what has changed, and everything once per keepalive. Its state is
// owned by run.
type advertiser struct {
	sample func() (capacity.Record, []capacity.Carriage)
	// homes are the topics of the capacity record, given its region.
	homes    func(now time.Time, region string) []Topic
	publish  func([]claim)
	withdraw func([]Topic)
	kick     chan struct{}

	last map[Topic]published
}

type published struct {
	at, news time.Time
	record   capacity.Record
}

func newAdvertiser(sample func() (capacity.Record, []capacity.Carriage), homes func(time.Time, string) []Topic, publish func([]claim), withdraw func([]Topic)) advertiser {
	return advertiser{
		sample:   sample,
		homes:    homes,
		publish:  publish,
		withdraw: withdraw,
		kick:     make(chan struct{}, 1),
		last:     make(map[Topic]published),
	}
}

// wake makes run take a sample now.
func (a *advertiser) wake() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// run samples and publishes until ctx is done, and returns ctx.Err(). It
// starts no goroutines; publish must not block.
func (a *advertiser) run(ctx context.Context) error {
	tick := time.NewTicker(holder.SampleEvery)
	defer tick.Stop()
	kicked := false
	for {
		r, carries := a.sample()
		claims, gone, owed := a.due(time.Now(), r, carries, kicked)
		if len(gone) > 0 {
			a.withdraw(gone)
		}
		if len(claims) > 0 {
			a.publish(claims)
		}
		kicked = owed
		select {
		case <-a.kick:
			kicked = true
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// due returns what to publish and what to withdraw at now, given a sample, and
// takes it as done. Kicked asks for all that the pace allows; owed says that
// it did not allow all.
func (a *advertiser) due(now time.Time, r capacity.Record, carries []capacity.Carriage, kicked bool) (claims []claim, gone []Topic, owed bool) {
	r.Carries = nil
	var all []claim
	for _, topic := range a.homes(now, r.Region) {
		all = append(all, claim{topic, r})
	}
	for _, c := range carries {
		s := r
		s.Carries = &c
		all = append(all, claim{StreamTopic(c.Stream), s})
	}
	for _, c := range all {
		last, known := a.last[c.topic]
		news := now // when it was last published for another reason than time
		switch since := now.Sub(last.at); {
		case !known:
		case since >= keepalive && c.topic != holder.RegionsTopic, since >= indexKeepalive:
			news = last.news
		case now.Sub(last.news) < holder.PublishGap:
			owed = owed || kicked
			continue
		case c.topic == holder.RegionsTopic:
			continue
		case kicked:
		case carriageChanged(last.record.Carries, c.record.Carries):
		case !holder.LoadMoved(&last.record, &c.record):
			continue
		case c.record.Carries != nil && since < streamGap:
			continue
		}
		claims = append(claims, c)
		a.last[c.topic] = published{now, news, c.record}
	}
	for topic := range a.last {
		if !slices.ContainsFunc(all, func(c claim) bool { return c.topic == topic }) {
			gone = append(gone, topic)
			delete(a.last, topic)
		}
	}
	return claims, gone, owed
}

func carriageChanged(a, b *capacity.Carriage) bool {
	if a == nil || b == nil {
		return a != b
	}
	x, y := *a, *b
	x.ParentRTT, y.ParentRTT = 0, 0 // drifts all the time
	return !reflect.DeepEqual(x, y)
}
