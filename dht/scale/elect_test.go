package scale

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

var errSilent = errors.New("no answer")

// A seeker asks the closest provisioner. If that does not answer, the next one
// asked depends on the closer one that it named.
func TestElected(t *testing.T) {
	refusal := &capacity.Refusal{Reason: ProvisioningMaxNodes}
	type answer struct {
		closer string // unless final is set
		err    error
	}
	for name, c := range map[string]struct {
		known   []peer.ID
		answers map[string]answer
		asked   []string // with a ! if final is set
		err     error
	}{
		"the closest answers":                             {[]peer.ID{"a", "b"}, nil, []string{"a"}, nil},
		"a refusal is an answer":                          {[]peer.ID{"a", "b"}, map[string]answer{"a": {"", refusal}}, []string{"a"}, refusal},
		"the closest is silent":                           {[]peer.ID{"a", "b"}, map[string]answer{"a": {"", errSilent}}, []string{"a", "b"}, nil},
		"one names a closer one":                          {[]peer.ID{"b"}, map[string]answer{"b": {"a", nil}}, []string{"b", "a!"}, nil},
		"the closer one refuses":                          {[]peer.ID{"b"}, map[string]answer{"b": {"a", nil}, "a": {"", refusal}}, []string{"b", "a!"}, refusal},
		"the closer one is silent":                        {[]peer.ID{"b"}, map[string]answer{"b": {"a", nil}, "a": {"", errSilent}}, []string{"b", "a!", "b!"}, nil},
		"a closer one that was silent is not asked again": {[]peer.ID{"a", "b"}, map[string]answer{"b": {"a", nil}, "a": {"", errSilent}}, []string{"a", "b", "b!"}, nil},
		"all are silent, and four are asked":              {[]peer.ID{"a", "b", "c", "d", "e"}, map[string]answer{"a": {"", errSilent}, "b": {"", errSilent}, "c": {"", errSilent}, "d": {"", errSilent}}, []string{"a", "b", "c", "d"}, errSilent},
		"nobody starts servers":                           {nil, nil, nil, ErrNoProvisioner},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			p := &Provisioners{
				Self: "self",
				List: func(context.Context, string) ([]peer.ID, error) { return c.known, nil },
				Ask: func(_ context.Context, id peer.ID, req Request) (Reply, error) {
					a := c.answers[string(id)]
					if req.Final {
						asked = append(asked, string(id)+"!")
						return Reply{Server: PendingServer{Request: string(id)}}, a.err
					}
					asked = append(asked, string(id))
					return Reply{Server: PendingServer{Request: string(id)}, Closer: peer.ID(a.closer)}, a.err
				},
				Log: slog.New(slog.DiscardHandler),
			}
			server, err := p.Provision(t.Context(), "eu", capacity.Need{}, "sessions")
			if !errors.Is(err, c.err) || !slices.Equal(asked, c.asked) {
				t.Errorf("asked %v, error %v; want %v, %v", asked, err, c.asked, c.err)
			}
			if err == nil && server.Request != asked[len(asked)-1][:1] {
				t.Errorf("%s was asked last, and the server is that of %s", asked[len(asked)-1], server.Request)
			}
		})
	}
}

// A hanging provisioner costs AnswerTime, and the holders required for the list
// are waited for no longer than that.
func TestElectedGivesUpOnOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := &Provisioners{
			Self: "self",
			Own: &Provisioner{Regions: []string{"eu"}, Start: func(context.Context, string, capacity.Need, string) (PendingServer, error) {
				return PendingServer{Request: "own"}, nil
			}},
			List: func(context.Context, string) ([]peer.ID, error) { return []peer.ID{"hangs", "self"}, nil },
			Ask: func(ctx context.Context, _ peer.ID, _ Request) (Reply, error) {
				<-ctx.Done()
				return Reply{}, ctx.Err()
			},
			Log: slog.New(slog.DiscardHandler),
		}
		server, err := p.Provision(t.Context(), "eu", capacity.Need{}, "sessions")
		if err != nil || server.Request != "own" || time.Since(start) != AnswerTime {
			t.Errorf("got %+v, %v after %v", server, err, time.Since(start))
		}
	})
}

func TestAnswer(t *testing.T) {
	unknown := errors.New("3 of 4 holders did not answer")
	for name, c := range map[string]struct {
		req    Request
		from   peer.ID
		known  []peer.ID
		list   error
		silent peer.ID
		closer peer.ID
		acts   string
		err    error
	}{
		"the closest starts one":                     {req: Request{Region: "eu"}, known: []peer.ID{"self", "b"}, acts: "start"},
		"the closest lets one go":                    {req: Request{Region: "eu", Leave: true}, known: []peer.ID{"self"}, acts: "leave"},
		"a closer one is named":                      {req: Request{Region: "eu"}, known: []peer.ID{"a", "self"}, closer: "a"},
		"a closer one that is silent is not":         {req: Request{Region: "eu"}, known: []peer.ID{"a", "self"}, silent: "a", acts: "start"},
		"the asking one is not named to itself":      {req: Request{Region: "eu"}, from: "a", known: []peer.ID{"a", "self"}, acts: "start"},
		"asked to answer itself":                     {req: Request{Region: "eu", Final: true}, known: []peer.ID{"a", "self"}, acts: "start"},
		"another region":                             {req: Request{Region: "us"}, known: []peer.ID{"a", "self"}, err: ErrNoProvisioner},
		"whether there is a closer one is not known": {req: Request{Region: "eu"}, list: unknown, err: unknown},
	} {
		t.Run(name, func(t *testing.T) {
			acts := ""
			p := &Provisioners{
				Self: "self",
				Own: &Provisioner{
					Regions: []string{"eu"},
					Start: func(context.Context, string, capacity.Need, string) (PendingServer, error) {
						acts = "start"
						return PendingServer{}, nil
					},
					Leave: func(context.Context, string, peer.ID) error {
						acts = "leave"
						return nil
					},
				},
				List:   func(context.Context, string) ([]peer.ID, error) { return c.known, c.list },
				Silent: func(id peer.ID) bool { return id == c.silent },
			}
			reply, err := p.Answer(t.Context(), c.from, c.req)
			if !errors.Is(err, c.err) || reply.Closer != c.closer || acts != c.acts {
				t.Errorf("%q, closer %q, error %v; want %q, %q, %v", acts, reply.Closer, err, c.acts, c.closer, c.err)
			}
		})
	}
}
