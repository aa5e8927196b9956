//go:build amd64 || arm64

package udp

import (
	"net"
	"syscall"
	"unsafe"
)

// kernelDrops returns how many datagrams the kernel has dropped since conn was
// bound, most of them because they were not read fast enough; 0 if that is
// unknown.
func kernelDrops(conn *net.UDPConn) int64 {
	// Linux, include/uapi/linux/sock_diag.h: SK_MEMINFO_VARS numbers, of which
	// SK_MEMINFO_DROPS is the last.
	const soMeminfo = 55
	var info [9]uint32
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { // an error leaves info at 0
		size := uint32(unsafe.Sizeof(info))
		_, _, _ = syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.SOL_SOCKET, soMeminfo, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	return int64(info[8])
}
