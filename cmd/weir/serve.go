package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"weir/cmd/weir/cmdline"
	"weir/sfu/udp"
)

func listenMedia(log *slog.Logger, addr string, asked bool) (*udp.Socket, error) {
	socket, err := bindFree(log, "--media-port", addr, asked, udp.Listen)
	if err != nil {
		return nil, fmt.Errorf("--media-port: %w", err)
	}
	return socket, nil
}

func listenTCP(log *slog.Logger, addr, flag string, asked bool) (net.Listener, error) {
	return bindFree(log, flag, addr, asked, func(addr string) (net.Listener, error) {
		l, err := net.Listen("tcp", addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("%s %s is in use by another process (%w): choose another, or port 0 for any free one", flag, addr, syscall.EADDRINUSE)
		}
		if errors.Is(err, syscall.EACCES) {
			return nil, fmt.Errorf("%s %s: %w: ports below 1024 need root or CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE), or take a port above", flag, addr, err)
		}
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", flag, addr, err)
		}
		return l, nil
	})
}

// clientHost is the address to give to clients if --http or --media-port binds
// all addresses of this machine, and zero if neither does. Without such an
// address, the error says which flag to give.
func (c nodeConfig) clientHost(public net.Listener, media *udp.Socket) (netip.Addr, error) {
	http := public.Addr().(*net.TCPAddr)
	anyHTTP := http.IP.IsUnspecified() && c.publicURL == ""
	anyMedia := media.LocalAddr().(*net.UDPAddr).IP.IsUnspecified()
	if c.publicIP.IsValid() || !anyHTTP && !anyMedia {
		return c.publicIP, nil
	}
	addrs, err := machineAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("addresses of this machine: %w", err)
	}
	host, err := onlyAddr(addrs)
	switch {
	case err == nil:
		c.log.Info("clients are told the only address of this machine", "address", host)
	case anyHTTP:
		return host, cmdline.BadInput(fmt.Errorf("--http %s: clients cannot be told a wildcard, and %w: give --public-url http://HOST:%d with the one that they reach", c.http, err, http.Port))
	case len(addrs) > 0: // ICE offers them all; the record has room for one
		host = addrs[0]
	}
	return host, nil
}

func newServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// serve runs s on l until ctx is done.
func serve(ctx context.Context, s *http.Server, l net.Listener) error {
	s.BaseContext = func(net.Listener) context.Context { return ctx } // ends event streams
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpShutdown)
		defer cancel()
		if s.Shutdown(grace) != nil {
			_ = s.Close()
		}
	})
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}
