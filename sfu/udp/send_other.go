//go:build !linux

package udp

import "syscall"

// A sendPath says how batches are sent: here one datagram after the other.
type sendPath struct{ batches, segments bool }

func newSendPath(syscall.RawConn) sendPath { return sendPath{} }

type headers struct{}

func (*headers) send(*Batch) {}
