package whip

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/trace"

	"weir/capacity/scope"
	"weir/capacity/tracing"
	"weir/sfu/pb"
	"weir/sfu/problem"
	"weir/sfu/whip/handover"
)

const (
	// MaxHelpers bounds the helpers that one client is offered to, one after
	// the other, and anotherTimeout the search for the next.
	MaxHelpers     = 3
	anotherTimeout = 3 * time.Second
)

// relay has the helper serve the client of a, and passes its answer on. The
// helper is reached over libp2p, as the peer that granted the lease: the URL in
// its record is for clients.
func (d *redirector) relay(ctx context.Context, w http.ResponseWriter, a *request, h Helper, ticket string, wait time.Duration) error {
	asking, span := tracing.Start(ctx, d.cfg.Tracer, "hand over", trace.SpanKindClient,
		tracing.RPCSystem.String(tracing.System), tracing.RPCMethod.String("overflow/handover"), tracing.Peer.String(h.Node.String()))
	m := &pb.Handover{
		Role: handoverRole(a.kind), Stream: a.name, Ticket: ticket, WaitMs: uint32(wait.Milliseconds()), Offer: a.raw,
		Trace: tracing.ToWire(asking),
	}
	if a.client.Addr.IsValid() {
		m.Client = a.client.Addr.String()
	}
	out, err := d.exchange(asking, h, m)
	problem.Failed(span, err)
	if err == nil && span.IsRecording() {
		span.SetAttributes(tracing.Status.Int(int(out.Status)))
	}
	span.End()
	if err != nil {
		d.cfg.Log.WarnContext(ctx, "helper not reached", "helper", h.Node, "err", err)
		return notReached(h, problem.Cause(err))
	}
	if out.Status != http.StatusCreated {
		if out.Status < 400 || out.Status > 599 {
			return notReached(h, fmt.Sprintf("it answered with status %d", out.Status))
		}
		p := problem.Parse(int(out.Status), out.ContentType, out.Body)
		if p.Code == problem.BadTicket { // the client has no ticket itself
			return notReached(h, "it did not take the ticket")
		}
		p.Node = h.Node
		return p
	}
	if err := d.cfg.Gate.CheckURL(scope.Redirect, out.Location); err != nil {
		return notReached(h, "clients must not be sent to the address that it gives")
	}
	header := w.Header()
	header.Set("Content-Type", typeSDP)
	for key, value := range map[string]string{"Location": out.Location, "ETag": out.Etag, "Accept-Patch": out.AcceptPatch} {
		if value != "" {
			header.Set(key, value)
		}
	}
	for _, link := range out.Links {
		header.Add("Link", link)
	}
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(out.Body)
	return nil
}

func handoverRole(kind Kind) pb.Handover_Role {
	if kind == WHIP {
		return pb.Handover_PUBLISH
	}
	return pb.Handover_VIEW
}

// exchange sends m to the helper and returns the outcome, within ctx's
// deadline.
func (d *redirector) exchange(ctx context.Context, h Helper, m *pb.Handover) (*pb.Outcome, error) {
	if d.cfg.Handover == nil {
		return nil, errors.New("this node hands nothing over")
	}
	signal, err := d.cfg.Handover(ctx, h.Node, h.Addrs)
	if err != nil {
		return nil, err
	}
	return handover.Ask(ctx, signal, m)
}
