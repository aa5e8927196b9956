//go:build !linux || !(amd64 || arm64)

package udp

import "net"

// kernelDrops returns how many datagrams the kernel has dropped since conn was
// bound; always 0, because this system does not report it.
func kernelDrops(*net.UDPConn) int64 { return 0 }
