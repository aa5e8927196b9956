package whip

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/scope"
	"weir/capacity/signed"
	"weir/capacity/tracing"
	"weir/sfu/forward"
	"weir/sfu/meter"
	"weir/sfu/problem"
)

// A redirector redirects clients to the nodes that have room for them.
type redirector struct{ cfg *Config }

// redirect sends the client to a helper, with a ticket in the URL: browsers and
// Go clients drop an Authorization header when they follow a redirect to
// another host.
func (d *redirector) redirect(ctx context.Context, w http.ResponseWriter, a *request, h *redirect) error {
	helper := h.helper
	if err := d.cfg.Gate.CheckURL(scope.Redirect, helper.URL); err != nil {
		return notReached(helper, "clients must not be sent to the address that it gives")
	}
	purpose := capacity.Publish
	t := capacity.Ticket{
		Lease: helper.Lease.ID, Stream: a.name, Purpose: purpose, Target: helper.Node, From: d.cfg.Self,
		Expires: helper.Lease.Expires, Trace: tracing.ToWire(ctx),
	}
	if a.kind == WHEP {
		t.Purpose = capacity.View
		if d.carries(a.name) {
			// Grant the pull that the helper will need here and now. If even
			// that is refused, the helper looks for another carrier. It is not
			// refused for leases that the helper has enough of already: then it
			// may have pulled from here before, or is admitted by the ledger.
			need := meter.DefaultNeed(capacity.Cascade, a.name)
			_, err := d.cfg.Ledger.Reserve(time.Now(), capacity.Request{ID: t.Lease, From: helper.Node, Need: need})
			var refused *capacity.Refusal
			if err == nil || errors.As(err, &refused) && refused.Reason == "share" {
				t.Source, t.SourceAddrs = d.cfg.Self, d.cfg.Addrs()
			}
		}
	}
	ticket, err := signed.SealTicket(t, d.cfg.Key)
	if err == nil {
		ticket, err = d.cfg.Rights.AttachRight(ticket, a.grant)
	}
	if err != nil {
		return fmt.Errorf("make a ticket: %w", err)
	}
	to := strings.TrimSuffix(helper.URL, "/") + "/" + string(a.kind) + "/" + a.name + "?ticket=" + url.QueryEscape(ticket) + layerQuery(a.layer)
	wait := max(time.Until(a.until).Truncate(time.Millisecond), 0)
	if wait > 0 {
		to += "&wait=" + wait.String()
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.AddEvent("redirect", trace.WithAttributes(tracing.Peer.String(helper.Node.String()), tracing.Reason.String(h.reason)))
	}
	d.cfg.eventOf(ctx, event.Event{Kind: event.Redirected, Stream: a.name, Peer: helper.Node, Role: a.kind.role(), Client: a.client.String(), Reason: h.reason, Detail: helper.Why})
	if d.cfg.Overflow() == Relay {
		if err := a.visit.Rest(); err != nil {
			return err
		}
		asking, cancel := context.WithTimeout(ctx, relayTimeout+wait)
		defer cancel()
		err := d.relay(asking, w, a, helper, ticket, wait)
		if next := d.another(ctx, h, err); next != nil {
			return d.redirect(ctx, w, a, next)
		}
		if err == nil {
			a.grant.MarkUsed()
		}
		return err
	}
	a.grant.MarkUsed()
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusTemporaryRedirect)
	return nil
}

// carries reports whether this node carries the stream.
func (d *redirector) carries(name string) bool {
	st, _ := d.cfg.Streams.Here(name)
	return st != nil && !st.Ended()
}

// another returns a helper to try instead of an unreachable one, or nil.
func (d *redirector) another(ctx context.Context, h *redirect, err error) *redirect {
	if p := problem.Of(err); p == nil || p.Code != problem.HelperUnreachable || len(h.tried) == MaxHelpers-1 {
		return nil
	}
	tried := append(slices.Clone(h.tried), h.helper.Node)
	ctx, cancel := context.WithTimeout(ctx, anotherTimeout)
	defer cancel()
	helper, err := d.cfg.Place(ctx, h.need, append(tried, d.cfg.Self))
	if err != nil {
		return nil
	}
	return &redirect{helper: helper, reason: h.reason, need: h.need, tried: tried}
}

func notReached(h Helper, why string) error {
	p := problem.New(problem.HelperUnreachable, "this node is full, and the one that has room could not be reached: "+why).Retry(retryNotLive)
	p.Node = h.Node
	return p
}

// layerQuery returns what [layerOf] reads.
func layerQuery(c forward.Choice) string {
	q := ""
	if c.RID != "" {
		q = "&layer=" + url.QueryEscape(c.RID)
	}
	if c.Spatial != nil {
		q += fmt.Sprintf("&spatial=%d", *c.Spatial)
	}
	if c.Temporal != nil {
		q += fmt.Sprintf("&temporal=%d", *c.Temporal)
	}
	return q
}
