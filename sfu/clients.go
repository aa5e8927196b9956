package sfu

import (
	"context"
	"time"

	"weir/capacity/event"
	"weir/sfu/forward"
	"weir/sfu/sdp"
	"weir/sfu/whip"
)

// media has pion connect clients. It implements [whip.Media].
type media struct{ *SFU }

func (m media) Publish(ctx context.Context, o *sdp.Offer, tell func(event.Event)) (whip.Publisher, []*forward.Track, string, error) {
	t, tracks, answer, err := m.engine.Publish(ctx, o, &m.drops, tell)
	if err != nil {
		return nil, nil, "", err // no nil *rtc.Client in an interface
	}
	return t, tracks, answer, nil
}

func (m media) View(ctx context.Context, st *forward.Stream, o *sdp.Offer, begun func(forward.Kind, time.Time)) (whip.Transport, string, error) {
	t, answer, err := m.engine.View(ctx, st, o, begun)
	if err != nil {
		return nil, "", err
	}
	return t, answer, nil
}

// carried are the streams that are carried here. It implements [whip.Streams].
type carried struct{ *SFU }

func (c carried) Get(name string) (st *forward.Stream, origin bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if here := c.streams[name]; here != nil {
		return here.Stream, here.Origin
	}
	return nil, false
}

func (c carried) Reserve(name string) (done func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.publishing[name] {
		return nil, false
	}
	c.publishing[name] = true
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.publishing, name)
	}, true
}

func (c carried) Publish(st *forward.Stream) {
	c.mu.Lock()
	old := c.streams[st.Name]
	if old == nil || old.Stream != st {
		c.streams[st.Name] = newOrigin(st, c.cfg.Self)
	}
	c.sighted(st.Name)
	c.mu.Unlock()
	switch {
	case old == nil || old.Stream == st:
	case old.Origin:
		old.End(reasonFinished)
	default: // a relay of a publisher that has gone
		old.End(reasonLost)
	}
	c.cfg.Changed()
}

func (c carried) Drop(st *forward.Stream) { c.drop(st, reasonFinished) }

func (c carried) Acquire(ctx context.Context, name string, hint *whip.Source, until time.Time, rest func() error) (*forward.Stream, func(), error) {
	st, release, err := c.acquire(ctx, name, hint, until, rest)
	if err != nil {
		return nil, nil, err
	}
	return st.Stream, release, nil
}

func (c carried) Await(ctx context.Context, name string, tries int) error {
	return c.await(ctx, name, tries)
}
