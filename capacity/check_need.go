package capacity

import "fmt"

func (r *Request) Check() error {
	if err := checkRequestID(r.ID); err != nil {
		return Malformed("id", "%w", err)
	}
	if err := CheckID("from", r.From); err != nil {
		return err
	}
	return r.Need.Check()
}

func (l *Lease) Check() error {
	if err := checkRequestID(l.ID); err != nil {
		return Malformed("id", "%w", err)
	}
	if err := CheckID("target", l.Target); err != nil {
		return err
	}
	if err := CheckID("from", l.From); err != nil {
		return err
	}
	if err := l.Need.Check(); err != nil {
		return err
	}
	return CheckTime("expires", l.Expires)
}

func (n *Need) Check() error {
	if n.Purpose > Cascade {
		return Malformed("purpose", "%d is unknown", n.Purpose)
	}
	if n.Stream != "" {
		if err := ValidStreamName(n.Stream); err != nil {
			return Malformed("stream", "%w", err)
		}
	}
	if n.Uplink < 0 || n.Uplink > MaxNeed {
		return Malformed("uplink", "%d bit/s is not within 0…%d", n.Uplink, int64(MaxNeed))
	}
	if n.Packets < 0 || n.Packets > MaxNeed {
		return Malformed("packets", "%d/s is not within 0…%d", n.Packets, int64(MaxNeed))
	}
	if err := CheckLabel(n.Region, MaxLabel); err != nil {
		return Malformed("region", "%w", err)
	}
	return nil
}

// checkRequestID accepts printable ASCII without spaces.
func checkRequestID(id string) error {
	if id == "" || len(id) > maxID {
		return fmt.Errorf("%d bytes, want 1…%d", len(id), maxID)
	}
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("%q contains %q", id, c)
		}
	}
	return nil
}

func (t *Ticket) Check() error {
	if err := checkRequestID(t.Lease); err != nil {
		return Malformed("lease", "%w", err)
	}
	if err := ValidStreamName(t.Stream); err != nil {
		return Malformed("stream", "%w", err)
	}
	if t.Purpose != View && t.Purpose != Publish {
		return Malformed("purpose", "%s is not for tickets", t.Purpose)
	}
	if err := CheckID("target", t.Target); err != nil {
		return err
	}
	if err := CheckID("from", t.From); err != nil {
		return err
	}
	if t.Purpose == Publish && (t.Source != "" || len(t.SourceAddrs) > 0) {
		return Malformed("source", "a publisher has none")
	}
	if t.Source != "" {
		if err := CheckID("source", t.Source); err != nil {
			return err
		}
	}
	if err := CheckAddrs("source_addrs", t.SourceAddrs); err != nil {
		return err
	}
	return CheckTime("expires", t.Expires)
}
