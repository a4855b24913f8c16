//go:build linux && amd64

package work_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A tracer runs a process one instruction at a time, between pairs of breakpoints. All of
// its methods must be called on the thread that started the process.
type tracer struct {
	t   *testing.T
	pid int
	at  uint64 // the address after the breakpoint
	// others are the other threads of the process, which are stopped.
	others []int
}

// trace starts cmd, and stops it at its first breakpoint, with all its other threads: they
// would only disturb the one that is measured. It skips the test if processes cannot be
// traced here. The process ends with the test.
func trace(t *testing.T, cmd *exec.Cmd) *tracer {
	t.Helper()
	runtime.LockOSThread()
	p := &tracer{t: t}
	// The process has not ended before all of its threads are waited for.
	end := func() error {
		err := cmd.Process.Kill()
		for _, tid := range p.others {
			_, _ = syscall.Wait4(tid, nil, syscall.WALL, nil)
		}
		return err
	}
	cmd.SysProcAttr, cmd.Cancel = &syscall.SysProcAttr{Ptrace: true}, end
	if err := cmd.Start(); err != nil {
		t.Skipf("no process can be traced here: %v", err)
	}
	p.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = end()
		_ = cmd.Wait()
	})
	p.wait() // for the process to begin
	if !p.run() {
		t.Fatal("the process ends without a breakpoint")
	}
	p.at = p.registers().Rip
	p.stopOthers()
	return p
}

// wait waits until the process stops, and reports whether it has not ended.
func (p *tracer) wait() bool {
	p.t.Helper()
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(p.pid, &status, syscall.WALL, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			p.t.Fatal(err)
		default:
			return status.Stopped()
		}
	}
}

func (p *tracer) registers() (r syscall.PtraceRegs) {
	p.t.Helper()
	if err := syscall.PtraceGetRegs(p.pid, &r); err != nil {
		p.t.Fatal(err)
	}
	return r
}

// run continues the process until its next breakpoint, and reports whether there is one.
func (p *tracer) run() bool {
	p.t.Helper()
	for {
		if err := syscall.PtraceCont(p.pid, 0); err != nil {
			p.t.Fatal(err)
		}
		if !p.wait() {
			return false
		}
		if at := p.registers().Rip; p.at == 0 || p.at == at {
			return true
		}
	}
}

// count returns how many instructions the process executes until its next breakpoint.
func (p *tracer) count() (n int) {
	p.t.Helper()
	for {
		if err := syscall.PtraceSingleStep(p.pid); err != nil {
			p.t.Fatal(err)
		}
		if !p.wait() {
			p.t.Fatal("the process has ended")
		}
		n++
		if p.registers().Rip == p.at {
			return n
		}
	}
}

// stopOthers stops all other threads of the process.
func (p *tracer) stopOthers() {
	p.t.Helper()
	tasks, err := os.ReadDir("/proc/" + strconv.Itoa(p.pid) + "/task")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil || tid == p.pid {
			continue
		}
		p.await(tid)
		if err := syscall.PtraceAttach(tid); err != nil {
			p.t.Fatal(err)
		}
		if _, err := syscall.Wait4(tid, nil, syscall.WALL, nil); err != nil {
			p.t.Fatal(err)
		}
		p.others = append(p.others, tid)
	}
}

// await waits until a thread sleeps. A thread that runs may hold a lock of the runtime.
func (p *tracer) await(tid int) {
	p.t.Helper()
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", p.pid, tid))
		if err != nil {
			p.t.Fatal(err)
		}
		if _, state, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(state, "S") {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
