//go:build !linux

package testnet

import "syscall"

// killWithParent does nothing where the kernel offers no such thing.
func killWithParent(*syscall.SysProcAttr) {}
