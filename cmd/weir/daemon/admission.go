package daemon

import (
	"weir/sfu"
	"weir/sfu/rights"
)

// askForRights creates the check of rights to publish and view, if it is
// configured.
func (n *node) askForRights() error {
	if n.cfg.rights == nil {
		return nil
	}
	cfg := *n.cfg.rights
	cfg.Event, cfg.Log = n.event, n.log
	r, err := rights.New(cfg)
	if err != nil {
		return err
	}
	n.rights = r
	if !r.Transferable() && n.tuned.Load().overflow != sfu.Refuse {
		n.log.Warn("clients are not sent to other nodes when this one is full, since these would not know their right: give all nodes the same --ticket-secret")
	}
	return nil
}
