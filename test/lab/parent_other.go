//go:build !linux

package lab

import "syscall"

// dieWithParent is left to the tests' own cleaning up where the system offers no
// such thing.
func dieWithParent() *syscall.SysProcAttr { return nil }
