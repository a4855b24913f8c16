// Package leak finds goroutines that a package's tests have left behind.
package leak

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Main runs the tests of m and exits. It also fails if goroutines are left then. It is
// for TestMain.
func Main(m *testing.M) {
	status := m.Run()
	if left := Goroutines(); status == 0 && len(left) > 0 {
		_, _ = fmt.Fprintf(os.Stderr, "%d goroutines are left:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
		status = 1
	}
	os.Exit(status)
}

// patience is how long goroutines may take to end.
const patience = 2 * time.Second

// Goroutines returns the stacks of all goroutines but the caller's and those of
// the testing package and of the runtime, as soon as there are none or after two
// seconds.
func Goroutines() []string {
	for deadline, pause := time.Now().Add(patience), time.Millisecond; ; pause *= 2 {
		left := others()
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(pause)
	}
}

// expected are functions whose goroutines belong to no test.
var expected = []string{
	"testing.(*T).Run(", "testing.(*F).Fuzz(", "testing.runFuzzing(", "testing.runFuzzTests(", "testing.tRunner.func",
	"os/signal.signal_recv(", "os/signal.loop(", "runtime.ensureSigM(", "runtime.ReadTrace(",
}

func others() (left []string) {
	stacks := make([]byte, 1<<20)
	for {
		n := runtime.Stack(stacks, true)
		if n < len(stacks) {
			stacks = stacks[:n]
			break
		}
		stacks = make([]byte, 2*len(stacks))
	}
	all := strings.Split(strings.TrimSpace(string(stacks)), "\n\n")
next:
	for _, stack := range all[1:] { // the first is the caller's
		for _, f := range expected {
			if strings.Contains(stack, "\n"+f) {
				continue next
			}
		}
		left = append(left, stack)
	}
	return left
}
