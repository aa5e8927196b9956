package certs

import (
	"context"
	"net"
	"net/http"

	"weir/capacity/event"
)

// Open prepares for serving at the public port, which is bound to public, and
// at the plain port that redirects to it, nil for none, which then belongs to c.
// Certificates by ACME are stored below dir. Events go to tell. No request is
// made yet.
func (c *Certificates) Open(dir string, public net.Addr, plain net.Listener, tell func(event.Event)) {
	c.event, c.Redirect = tell, plain
	if c.Auto != nil {
		c.Auto.open(dir, public, plain, c.log, func(err error) { c.refused(&pairError{PairACME, c.Auto.acmeError(err)}) })
	}
}

// Close undoes open; it is for a node that is not run.
func (c *Certificates) Close() error {
	if c.Auto != nil {
		_ = c.Auto.close()
	}
	if c.Redirect != nil {
		return c.Redirect.Close()
	}
	return nil
}

// Tasks are the functions to run as long as the process lives. Base is the URL
// given to clients.
func (c *Certificates) Tasks(base func() string) []func(context.Context) error {
	tasks := []func(context.Context) error{func(ctx context.Context) error {
		if err := c.begin(ctx, base()); err != nil {
			return err
		}
		return c.run(ctx)
	}}
	if c.Auto != nil {
		tasks = append(tasks, func(ctx context.Context) error {
			defer c.Auto.close()
			return c.Auto.run(ctx)
		})
	}
	return tasks
}

// begin waits for the certificate that is stored, if it comes by ACME, and logs
// what is odd about the one in force.
func (c *Certificates) begin(ctx context.Context, base string) error {
	if c.Auto != nil {
		select {
		case <-c.Auto.loaded:
		case <-ctx.Done():
			return ctx.Err()
		}
		if c.inForce.Store(c.Auto.newest()); c.Leaf() == nil {
			c.log.Info("no certificate yet, getting one", "domain", c.Auto.Domain, "from", c.Auto.url)
			return nil
		}
	}
	for _, why := range c.advice(base) {
		c.log.Warn("clients may not trust the certificate", "detail", why)
	}
	if who := c.keyAdvice(); who != "" {
		c.log.Warn("private key is open to others", "detail", who)
	}
	return nil
}

// Plain is the handler of the plain port: it answers the challenges of ACME, and
// redirects clients to base.
func (c *Certificates) Plain(base func() string) http.Handler {
	h := redirection(base)
	if c.Auto != nil {
		h = c.Auto.challenges(h)
	}
	return h
}
