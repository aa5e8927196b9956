package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"weir/capacity"
	"weir/sfu/client"
)

// FirstFrame is the time from viewers' POST until the first decodable frame was
// there, and its parts.
type FirstFrame struct {
	Case string `json:"case"`

	Total  Spread `json:"total_ms"`
	Beyond Spread `json:"beyond_keyframe_ms"` // Total less Keyframe

	Answer   Spread `json:"answer_ms"`   // POST to SDP answer: finding, reserving, linking, pulling
	Connect  Spread `json:"connect_ms"`  // from there until media can flow: ICE and DTLS
	Keyframe Spread `json:"keyframe_ms"` // from there to the first packet of a keyframe, which was requested
	Frame    Spread `json:"frame_ms"`    // from there until the frame is complete
}

func firstFrame(name string, views []client.Stats) FirstFrame {
	keyframe := func(s client.Stats) time.Duration { return max(0, s.FirstKeyframe-s.Connected) }
	by := func(f func(client.Stats) time.Duration) Spread {
		return spreadBy(views, func(s client.Stats) float64 { return capacity.Milliseconds(f(s)) })
	}
	return FirstFrame{
		Case:     name,
		Total:    by(func(s client.Stats) time.Duration { return s.FirstFrame }),
		Beyond:   by(func(s client.Stats) time.Duration { return s.FirstFrame - keyframe(s) }),
		Answer:   by(func(s client.Stats) time.Duration { return s.Answered }),
		Connect:  by(func(s client.Stats) time.Duration { return s.Connected - s.Answered }),
		Keyframe: by(keyframe),
		Frame:    by(func(s client.Stats) time.Duration { return s.FirstFrame - max(s.FirstKeyframe, s.Connected) }),
	}
}

// viewTime bounds one viewer's start.
const viewTime = 10 * time.Second

// The clip has a keyframe every 500 ms. A viewer that comes by itself meets it at
// a random phase, so the pauses between samples are random, between these.
const (
	pauseLeast = 250 * time.Millisecond
	pauseMost  = 500 * time.Millisecond
)

// sample views url once, after a pause.
func sample(ctx context.Context, url string) (client.Stats, error) {
	select {
	case <-time.After(pauseLeast + rand.N(pauseMost-pauseLeast)):
	case <-ctx.Done():
		return client.Stats{}, ctx.Err()
	}
	return viewOnce(ctx, url)
}

// viewOnce views url until the first frame is there, and leaves.
func viewOnce(ctx context.Context, url string) (client.Stats, error) {
	v, err := view(ctx, url, nil)
	if err != nil {
		return client.Stats{}, err
	}
	s := v.Stats()
	if err := v.Close(); err != nil {
		return s, err
	}
	return videoStats(s), nil
}

// videoStats is s with the times of its video alone: for the client the first
// packet of audio counts as a keyframe too.
func videoStats(s client.Stats) client.Stats {
	if i := slices.IndexFunc(s.Tracks, func(t client.TrackStats) bool { return t.Kind == "video" }); i >= 0 {
		t := s.Tracks[i]
		s.FirstPacket, s.FirstKeyframe, s.FirstFrame = t.FirstPacket, t.FirstKeyframe, t.FirstFrame
	}
	return s
}

// view starts to view url and returns once the first frame is there.
func view(ctx context.Context, url string, configure func(*client.ViewConfig)) (*client.Viewer, error) {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	cfg := client.ViewConfig{URL: url}
	if configure != nil {
		configure(&cfg)
	}
	v, err := client.View(ctx, cfg)
	if err != nil {
		return nil, err
	}
	select {
	case <-v.FirstFrame():
		return v, nil
	case <-v.Done():
		err = errors.New("the connection was lost")
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = v.Close()
	return nil, fmt.Errorf("view %s: no frame came: %w", url, err)
}

// publish publishes the clip at url until stop is called.
func (t *trial) publish(ctx context.Context, url string) (stop func(), served string, err error) {
	connecting, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	p, err := client.Publish(connecting, client.PublishConfig{URL: url, Media: t.clip})
	if err != nil {
		return nil, "", err
	}
	running, end := context.WithCancel(ctx)
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = p.Run(running) // viewers report missing media
	}()
	return func() {
		end()
		<-ran
		_ = p.Close() // a session that is not deleted is reaped
	}, p.NodeURL(), nil
}

// newLinks measures viewers at nodes that have no cascade link to the stream's
// origin yet. Each pair of nodes gives one sample at a time: its link is closed
// about 10 s after its last use.
func (t *trial) newLinks(ctx context.Context) (FirstFrame, error) {
	const name = "over a new link"
	var views []client.Stats
	for origin := 0; len(views) < t.cfg.Samples; origin = (origin + 1) % (len(t.nodes) - 1) {
		a, stream := t.nodes[origin], fmt.Sprintf("bench/new/%d", origin)
		stop, _, err := t.publish(ctx, a.whip(stream))
		if err != nil {
			return FirstFrame{}, err
		}
		for _, b := range t.nodes[origin+1:] {
			if len(views) == t.cfg.Samples {
				break
			}
			s, err := t.newLink(ctx, a, b, stream)
			if err != nil {
				stop()
				return FirstFrame{}, err
			}
			views = append(views, s)
		}
		stop()
	}
	return firstFrame(name, views), nil
}

// newLink has one viewer at b open the link to a.
func (t *trial) newLink(ctx context.Context, a, b node, stream string) (client.Stats, error) {
	err := until(ctx, fmt.Sprintf("the link of %s and %s is let go", a.Name, b.Name), func() (bool, error) {
		l, err := a.linkTo(ctx, b)
		if l != nil || err != nil {
			return false, err
		}
		l, err = b.linkTo(ctx, a)
		return l == nil, err
	})
	if err == nil {
		err = b.finds(ctx, stream, a)
	}
	if err != nil {
		return client.Stats{}, err
	}
	asked := time.Now()
	s, err := sample(ctx, b.whep(stream))
	if err != nil {
		return s, err
	}
	l, err := b.linkTo(ctx, a)
	switch {
	case err != nil:
		return s, err
	case l == nil || l.Opened.Before(asked):
		return s, fmt.Errorf("the viewer at %s was not served over a new link to %s", b.Name, a.Name)
	}
	return s, nil
}

// existingLink measures viewers at b, which pulls another stream from a
// already: first of a stream that b does not carry, then of one that it does.
func (t *trial) existingLink(ctx context.Context, a, b node) (pulled, carried FirstFrame, err error) {
	const kept, fresh = "bench/kept", "bench/fresh"
	for _, stream := range []string{kept, fresh} {
		stop, _, err := t.publish(ctx, a.whip(stream))
		if err != nil {
			return pulled, carried, err
		}
		defer stop()
		if err := b.finds(ctx, stream, a); err != nil {
			return pulled, carried, err
		}
	}
	holder, err := view(ctx, b.whep(kept), nil)
	if err != nil {
		return pulled, carried, err
	}
	defer holder.Close()
	before, err := b.linkTo(ctx, a)
	if before == nil {
		return pulled, carried, errors.Join(fmt.Errorf("%s has no link to %s", b.Name, a.Name), err)
	}

	var views []client.Stats
	for range t.cfg.Samples {
		err := until(ctx, fmt.Sprintf("%s has let go of %s", b.Name, fresh), func() (bool, error) {
			l, err := b.linkTo(ctx, a)
			return l != nil && !slices.Contains(l.PullsIn, fresh), err
		})
		if err == nil {
			err = b.finds(ctx, fresh, a)
		}
		if err != nil {
			return pulled, carried, err
		}
		s, err := sample(ctx, b.whep(fresh))
		if err != nil {
			return pulled, carried, err
		}
		views = append(views, s)
	}
	pulled = firstFrame("over an existing link", views)

	views = nil
	for range t.cfg.Samples {
		s, err := sample(ctx, b.whep(kept))
		if err != nil {
			return pulled, carried, err
		}
		views = append(views, s)
	}
	carried = firstFrame("carried there already", views)

	after, err := b.linkTo(ctx, a)
	if err == nil && (after == nil || !after.Opened.Equal(before.Opened)) {
		err = errors.New("the existing link was opened anew meanwhile")
	}
	return pulled, carried, err
}

// direct measures viewers at the origin itself: the cost without a cascade.
func (t *trial) direct(ctx context.Context, a node) (FirstFrame, error) {
	const stream = "bench/direct"
	stop, _, err := t.publish(ctx, a.whip(stream))
	if err != nil {
		return FirstFrame{}, err
	}
	defer stop()
	var views []client.Stats
	for range t.cfg.Samples {
		s, err := sample(ctx, a.whep(stream))
		if err != nil {
			return FirstFrame{}, err
		}
		views = append(views, s)
	}
	return firstFrame("at the origin, no cascade", views), nil
}
