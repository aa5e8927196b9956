package eventlog

import (
	"fmt"
	"log/slog"
	"time"

	"weir/capacity/event"
	"weir/cmd/weir/api"
	"weir/cmd/weir/term"
)

// A line is the log line of an event.
type line struct {
	Level slog.Level
	Msg   string
	Attrs []slog.Attr
}

// Message is the log message for a kind of event, and its level. A session has
// two lines at info, and so has a link; steps between are for debugging.
func Message(e event.Event) (slog.Level, string) {
	switch e.Kind {
	case event.SessionOpened:
		if e.Role == "publisher" {
			return slog.LevelInfo, "publisher session opened"
		}
		return slog.LevelInfo, "viewer session opened"
	case event.SessionClosed:
		if e.Role == "publisher" {
			return slog.LevelInfo, "publisher session closed"
		}
		return slog.LevelInfo, "viewer session closed"
	case event.StreamStarted:
		return slog.LevelDebug, "stream started" // its session has a line
	case event.StreamEnded:
		return slog.LevelDebug, "stream ended"
	case event.StreamWaiting:
		return slog.LevelWarn, "publisher vanished"
	case event.StreamOrphaned:
		return slog.LevelWarn, "stream cut off from its origin"
	case event.StreamResumed:
		return slog.LevelInfo, "stream has a source again"
	case event.MediaStalled:
		return slog.LevelWarn, "media stalled"
	case event.MediaResumed:
		return slog.LevelInfo, "media resumed"
	case event.MediaChanged:
		return slog.LevelDebug, "media continues under another SSRC"
	case event.MediaDropped:
		return slog.LevelWarn, "media dropped"
	case event.PublisherReplaced:
		return slog.LevelWarn, "silent publisher replaced"
	case event.Redirected:
		return slog.LevelInfo, "client redirected"
	case event.Refused:
		return slog.LevelWarn, "client refused"
	case event.LinkOpened:
		return slog.LevelInfo, "cascade link opened"
	case event.LinkClosed:
		if e.Reason != "" {
			return slog.LevelWarn, "cascade link lost"
		}
		return slog.LevelInfo, "cascade link closed"
	case event.PullStarted:
		return slog.LevelDebug, "pull started"
	case event.PullWaiting:
		return slog.LevelInfo, "pull waits for a node with room"
	case event.PullReady:
		return slog.LevelInfo, "pull ready"
	case event.PullFailed:
		if e.Reason == event.NotLive {
			return slog.LevelDebug, "pull failed" // reported to its client
		}
		return slog.LevelInfo, "pull failed"
	case event.PullLost:
		return slog.LevelWarn, "pull lost"
	case event.PullResumed:
		return slog.LevelInfo, "pull resumed"
	case event.PullMoved:
		return slog.LevelInfo, "pull moved"
	case event.PullEnded:
		return slog.LevelInfo, "pull ended"
	case event.Placement:
		return slog.LevelDebug, "placement decided"
	case event.NodeReady:
		return slog.LevelDebug, "node is ready" // logged in full elsewhere
	case event.NodeCopied:
		return slog.LevelDebug, "identity in use elsewhere" // logged in full elsewhere
	case event.NodeFull:
		return slog.LevelWarn, "node is full"
	case event.NodeFree:
		return slog.LevelInfo, "node has room again"
	case event.NodeEnding:
		return slog.LevelInfo, "node is stopping"
	case event.DrainStarted:
		return slog.LevelInfo, "draining started"
	case event.DrainEnded:
		return slog.LevelInfo, "draining ended"
	case event.Released:
		return slog.LevelInfo, "node released, it is stopping"
	case event.PeerLost:
		return slog.LevelWarn, "peer lost"
	case event.PeerBack:
		return slog.LevelInfo, "peer is back"
	case event.PolicyApplied:
		return slog.LevelInfo, "policy applied"
	case event.PolicyRefused:
		return slog.LevelWarn, "policy not applied; the one before stays in force"
	case event.CertificateApplied:
		return slog.LevelInfo, "certificate in force"
	case event.CertificateFailed:
		return slog.LevelWarn, "certificate not applied; the one before stays in force"
	case event.CertificateExpiring:
		if e.Reason != "" {
			return slog.LevelError, "certificate has expired: clients do not trust this node any more"
		}
		return slog.LevelWarn, "certificate expires soon"
	case event.KeysApplied:
		return slog.LevelInfo, "keys read"
	case event.KeysRefused:
		return slog.LevelWarn, "keys not read"
	case event.ConfigReloaded:
		return slog.LevelInfo, "configuration read again"
	case event.ConfigRefused:
		if e.Reason == api.ReloadFailed {
			return slog.LevelWarn, "configuration read again, but not all of it is in force"
		}
		return slog.LevelWarn, "configuration not applied; the one before stays in force"
	case event.ProvisionStarted:
		return slog.LevelInfo, "server started by the hook"
	case event.ProvisionFailed:
		return slog.LevelWarn, "server not started"
	case event.ProvisionMaxNodes:
		return slog.LevelInfo, "no further server started"
	case event.ProvisionArrived:
		return slog.LevelInfo, "new server has joined"
	case event.ProvisionTimedOut:
		return slog.LevelWarn, "new server has not joined in time"
	case event.ProvisionReleased:
		return slog.LevelInfo, "idle node released"
	case event.ProvisionPlaced:
		return slog.LevelInfo, "client placed on the new server"
	case event.ProvisionRefused:
		return slog.LevelInfo, "client refused after waiting for a server"
	}
	return slog.LevelInfo, string(e.Kind)
}

// Tell passes e on to the receiver, or logs it if there is none.
func Tell(to func(event.Event), log *slog.Logger, e event.Event) {
	if to != nil {
		to(e)
		return
	}
	write(log, lineOf(e))
}

// lineOf is the log line of e.
func lineOf(e event.Event) line {
	level, msg := Message(e)
	l := line{Level: level, Msg: msg}
	text := func(key, s string) {
		if s != "" {
			l.Attrs = append(l.Attrs, slog.String(key, term.Printable(s)))
		}
	}
	text("stream", e.Stream)
	if e.Peer != "" {
		key := "peer"
		if e.Kind == event.SessionOpened {
			key = "sent_by"
		}
		text(key, e.Name)
		text(key+"_id", e.Peer.String())
	}
	text("client", e.Client)
	text("reason", e.Reason)
	text("detail", e.Detail)
	if e.Elapsed > 0 {
		l.Attrs = append(l.Attrs, slog.String("after", Elapsed(e.Elapsed)))
	}
	if e.Kind == event.SessionClosed {
		l.Attrs = append(l.Attrs, slog.Int64("packets", e.Packets), slog.Int64("lost", e.Lost))
	}
	text("session", e.Session)
	text("trace_id", e.Trace)
	return l
}

// moreOf is the line that gives the number of suppressed lines of a sort.
func moreOf(k lineSort, left int) line {
	level, msg := Message(event.Event{Kind: k.kind, Reason: k.reason})
	l := line{Level: level, Msg: msg + ", and more of the same", Attrs: []slog.Attr{slog.Int("more", left)}}
	if k.reason != "" {
		l.Attrs = append(l.Attrs, slog.String("reason", term.Printable(k.reason)))
	}
	return l
}

// Elapsed formats millis, in milliseconds, in a suitable unit.
func Elapsed(millis float64) string {
	d := time.Duration(millis * float64(time.Millisecond))
	switch {
	case d < time.Second:
		return fmt.Sprintf("%.1fms", millis)
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}
