//go:build !linux

package testnet

import "syscall"

// killWithParent does nothing: the kernel has no such feature.
func killWithParent(*syscall.SysProcAttr) {}
