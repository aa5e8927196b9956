package capacity

import "fmt"

func (r *Request) Check() error {
	if err := checkRequestID(r.ID); err != nil {
		return malformed("id", "%w", err)
	}
	if err := checkID("from", r.From); err != nil {
		return err
	}
	return r.Need.Check()
}

func (l *Lease) Check() error {
	if err := checkRequestID(l.ID); err != nil {
		return malformed("id", "%w", err)
	}
	if err := checkID("target", l.Target); err != nil {
		return err
	}
	if err := checkID("from", l.From); err != nil {
		return err
	}
	if err := l.Need.Check(); err != nil {
		return err
	}
	return checkTime("expires", l.Expires)
}

func (n *Need) Check() error {
	if n.Purpose > Cascade {
		return malformed("purpose", "%d is unknown", n.Purpose)
	}
	if n.Stream != "" {
		if err := ValidStreamName(n.Stream); err != nil {
			return malformed("stream", "%w", err)
		}
	}
	if n.Uplink < 0 || n.Uplink > maxNeed {
		return malformed("uplink", "%d bit/s is not within 0…%d", n.Uplink, int64(maxNeed))
	}
	if n.Packets < 0 || n.Packets > maxNeed {
		return malformed("packets", "%d/s is not within 0…%d", n.Packets, int64(maxNeed))
	}
	if err := checkLabel(n.Region, MaxLabel); err != nil {
		return malformed("region", "%w", err)
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
		return malformed("lease", "%w", err)
	}
	if err := ValidStreamName(t.Stream); err != nil {
		return malformed("stream", "%w", err)
	}
	if t.Purpose != View && t.Purpose != Publish {
		return malformed("purpose", "%s is not for tickets", t.Purpose)
	}
	if err := checkID("target", t.Target); err != nil {
		return err
	}
	if err := checkID("from", t.From); err != nil {
		return err
	}
	if t.Purpose == Publish && (t.Source != "" || len(t.SourceAddrs) > 0) {
		return malformed("source", "a publisher has none")
	}
	if t.Source != "" {
		if err := checkID("source", t.Source); err != nil {
			return err
		}
	}
	if err := checkAddrs("source_addrs", t.SourceAddrs); err != nil {
		return err
	}
	return checkTime("expires", t.Expires)
}
