package main

import "syscall"

// attributes put a program into a group of its own and end it with the benchmark,
// however that ends.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
