package servers

import "syscall"

// dieWithParent makes a process end with the test binary, even if that is killed.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
