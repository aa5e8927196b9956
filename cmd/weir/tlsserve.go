package main

import (
	"context"
	"net"
	"net/http"

	"weir/capacity/event"
)

// open prepares for serving at the public port, which is bound to public, and
// at the plain port that redirects to it, nil for none, which then belongs to c.
// Certificates by ACME are stored below dir. Events go to tell. No request is
// made yet.
func (c *certificates) open(dir string, public net.Addr, plain net.Listener, tell func(event.Event)) {
	c.event, c.redirect = tell, plain
	if c.auto != nil {
		c.auto.open(dir, public, plain, c.log, func(err error) { c.refused(&pairError{pairACME, c.auto.acmeError(err)}) })
	}
}

// close undoes open; it is for a node that is not run.
func (c *certificates) close() error {
	if c.auto != nil {
		_ = c.auto.close()
	}
	if c.redirect != nil {
		return c.redirect.Close()
	}
	return nil
}

// tasks are the functions to run as long as the process lives. Base is the URL
// given to clients.
func (c *certificates) tasks(base func() string) []func(context.Context) error {
	tasks := []func(context.Context) error{func(ctx context.Context) error {
		if err := c.begin(ctx, base()); err != nil {
			return err
		}
		return c.run(ctx)
	}}
	if c.auto != nil {
		tasks = append(tasks, func(ctx context.Context) error {
			defer c.auto.close()
			return c.auto.run(ctx)
		})
	}
	return tasks
}

// begin waits for the certificate that is stored, if it comes by ACME, and logs
// what is odd about the one in force.
func (c *certificates) begin(ctx context.Context, base string) error {
	if c.auto != nil {
		select {
		case <-c.auto.loaded:
		case <-ctx.Done():
			return ctx.Err()
		}
		if c.inForce.Store(c.auto.newest()); c.leaf() == nil {
			c.log.Info("no certificate yet, getting one", "domain", c.auto.domain, "from", c.auto.url)
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

// plain is the handler of the plain port: it answers the challenges of ACME, and
// redirects clients to base.
func (c *certificates) plain(base func() string) http.Handler {
	h := redirection(base)
	if c.auto != nil {
		h = c.auto.challenges(h)
	}
	return h
}
