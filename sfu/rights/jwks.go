package rights

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"weir/capacity/event"
	"weir/sfu/problem"
)

const (
	// jwksTime bounds one fetch from the URL, and so the wait of a client with
	// an unknown key.
	jwksTime = 5 * time.Second
	// jwksAgain is the least time between two fetches that clients cause:
	// anybody can name a key that does not exist.
	jwksAgain = 10 * time.Second
	// jwksSlowest is the longest interval of fetches from a failing URL: when
	// it recovers, removed keys soon end their sessions.
	jwksSlowest = 10 * time.Second
)

// A jwksURL is a JWK set that is fetched from a URL. While fetches fail, its
// last keys stay in force.
type jwksURL struct {
	url    *url.URL
	each   time.Duration
	client *http.Client
	event  func(event.Event)
	set    atomic.Pointer[KeySet] // nil: never fetched

	mu      sync.Mutex
	looking chan struct{} // closed when the current fetch is over; nil: none
	asked   time.Time     // when a client caused the last fetch
	etag    string
	failing bool // the failure was logged

	good, failed atomic.Uint64
	last         atomic.Int64 // Unix ms
}

func newJWKS(address string, each time.Duration, client *http.Client, tell func(event.Event)) (*jwksURL, error) {
	u, err := parseURL(address)
	if err != nil {
		return nil, err
	}
	if each < time.Second || each > time.Hour {
		return nil, fmt.Errorf("%v between two looks: want 1s to 1h", each)
	}
	return &jwksURL{url: u, each: each, client: client, event: tell}, nil
}

// parseURL parses a URL that the operator configured. The error contains no
// part of it that may be a secret.
func parseURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("want a URL as https://example.org/path")
	}
	return u, nil
}

func (j *jwksURL) host() string { return j.url.Host }

// run fetches at once and then at the interval each, or, while that fails, at
// most at the interval jwksSlowest.
func (j *jwksURL) run(ctx context.Context) {
	pause := j.each
	for {
		if j.look(ctx) {
			pause = j.each
		} else {
			pause = min(2*pause, jwksSlowest)
		}
		wait := time.NewTimer(pause*9/10 + time.Duration(rand.Float64()*float64(pause)/5))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// again fetches for a client with an unknown key, and reports whether keys were
// fetched. It makes one fetch for all concurrent callers, and at most one every
// jwksAgain.
func (j *jwksURL) again(ctx context.Context) bool {
	now := time.Now()
	j.mu.Lock()
	under := j.looking
	due := now.Sub(j.asked) >= jwksAgain
	if due && under == nil {
		j.asked = now
	}
	j.mu.Unlock()
	if under != nil {
		select {
		case <-under:
			return true
		case <-ctx.Done():
			return false
		}
	}
	// The fetch is for all waiting clients, even if this one goes.
	return due && j.look(context.WithoutCancel(ctx))
}

// look fetches the keys, or waits for a fetch under way.
func (j *jwksURL) look(ctx context.Context) bool {
	j.mu.Lock()
	if under := j.looking; under != nil {
		j.mu.Unlock()
		<-under
		return true
	}
	over := make(chan struct{})
	j.looking = over
	etag := j.etag
	j.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, jwksTime)
	defer cancel()
	set, tag, err := j.fetch(ctx, etag)

	j.mu.Lock()
	j.looking = nil
	told := j.failing
	j.failing = err != nil
	if err == nil {
		j.etag = tag
	}
	j.mu.Unlock()
	defer close(over)
	if err != nil {
		if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
			return false // the node closes
		}
		j.failed.Add(1)
		if !told {
			stays := "the keys fetched before stay in force"
			if j.set.Load() == nil {
				stays = "they admit no client until it is fetched"
			}
			j.event(event.Event{Kind: event.KeysRefused, Detail: fmt.Sprintf("keys at %s: %v; %s", j.host(), err, stays)})
		}
		return false
	}
	j.good.Add(1)
	j.last.Store(time.Now().UnixMilli())
	if set == nil {
		set = j.set.Load() // not modified
	}
	before := j.set.Swap(set)
	if told || before == nil || !sameKeys(before, set) {
		j.event(event.Event{Kind: event.KeysApplied, Detail: fmt.Sprintf("keys at %s: %s", j.host(), inWords(set))})
	}
	return true
}

// fetch returns the keys, or nil if etag is still current.
func (j *jwksURL) fetch(ctx context.Context, etag string) (*KeySet, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.url.String(), nil)
	if err != nil {
		return nil, "", errors.New("the URL cannot be asked")
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	if etag != "" && j.set.Load() != nil {
		req.Header.Set("If-None-Match", etag)
	}
	resp, err := j.client.Do(req)
	if err != nil {
		return nil, "", errors.New(problem.Cause(problem.WithoutURL(err)))
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified && j.set.Load() != nil {
		return nil, etag, nil
	}
	if resp.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("it answered with status %d", resp.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxKeySet+1))
	if err != nil {
		return nil, "", errors.New(problem.Cause(err))
	}
	set, err := ParseKeys(b, false)
	if err != nil {
		return nil, "", err
	}
	tag := resp.Header.Get("ETag")
	if len(tag) > 1<<10 {
		tag = ""
	}
	return set, tag, nil
}

// sameKeys reports whether two sets accept the same tokens.
func sameKeys(a, b *KeySet) bool {
	if a == nil || b == nil || a.Len() != b.Len() {
		return false
	}
	ids := map[string]string{}
	for _, k := range a.keys {
		ids[k.ID] = k.print
	}
	for _, k := range b.keys {
		if ids[k.ID] != k.print {
			return false
		}
	}
	return true
}

func (j *jwksURL) status() Source {
	s := Source{Name: "jwks", Good: j.good.Load(), Failed: j.failed.Load()}
	j.mu.Lock()
	s.Failing = j.failing
	j.mu.Unlock()
	if set := j.set.Load(); set != nil {
		s.Keys, s.Read = set.Len(), time.UnixMilli(j.last.Load())
	}
	return s
}
