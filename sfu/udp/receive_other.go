//go:build !linux

package udp

import "syscall"

// A receivePath says how datagrams are read: here one after the other.
type receivePath struct{ gathers, coalesces bool }

func newReceivePath(syscall.RawConn) receivePath { return receivePath{} }

func coalesce(syscall.RawConn, bool) bool { return false }

type arrivals struct{}

func (*arrivals) next(*wire) (datagram, error) { panic("udp: nothing gathers datagrams here") }
