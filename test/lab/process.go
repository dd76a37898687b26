package lab

import "syscall"

// DieWithParent has a process that a test starts end with the test's own, where the
// system can do that.
func DieWithParent() *syscall.SysProcAttr { return dieWithParent() }
