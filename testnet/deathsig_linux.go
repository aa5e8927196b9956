package testnet

import "syscall"

// killWithParent makes the kernel kill the process when the thread that starts
// it ends.
func killWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
