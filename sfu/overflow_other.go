//go:build !linux || !(amd64 || arm64)

package sfu

import "net"

// overflowed is how many datagrams the kernel has dropped since conn was
// bound; 0, for here it does not tell.
func overflowed(*net.UDPConn) int64 { return 0 }
