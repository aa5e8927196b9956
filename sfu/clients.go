package sfu

import (
	"context"
	"time"

	"weir/capacity/event"
	"weir/sfu/forward"
	"weir/sfu/sdp"
	"weir/sfu/tree"
	"weir/sfu/whip"
)

// media connects clients by pion. It implements [whip.Media].
type media struct{ *SFU }

func (m media) Publish(ctx context.Context, o *sdp.Offer, tell func(event.Event)) (whip.Publisher, []*forward.Track, string, error) {
	t, tracks, answer, err := m.engine.Publish(ctx, o, &m.drops, tell)
	if err != nil {
		return nil, nil, "", err // avoids a nil *rtc.Client in an interface
	}
	return t, tracks, answer, nil
}

func (m media) View(ctx context.Context, st *forward.Stream, o *sdp.Offer, begun func(forward.Kind, time.Time)) (whip.Viewer, string, error) {
	t, answer, err := m.engine.View(ctx, st, o, begun)
	if err != nil {
		return nil, "", err
	}
	return t, answer, nil
}

// streams are the streams carried here. It implements [whip.Streams].
type streams struct{ *tree.Tree }

// Acquire calls the tree's Acquire.
func (s streams) Acquire(ctx context.Context, name string, hint *whip.Source, until time.Time, rest func() error) (*forward.Stream, func(), error) {
	st, release, err := s.Tree.Acquire(ctx, name, (*tree.Source)(hint), until, rest)
	if err != nil {
		return nil, nil, err
	}
	return st.Stream, release, nil
}
