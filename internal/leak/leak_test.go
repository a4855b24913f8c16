package leak_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/leak"
)

// TestMain leaves a goroutine behind where a test asks for it.
func TestMain(m *testing.M) {
	if os.Getenv("USHER_TEST_LEAK") != "" {
		go stays(make(chan struct{}))
	}
	leak.Main(m)
}

func stays(end chan struct{}) { <-end }

func TestGoroutinesThatEndInTimeAreNoLeak(t *testing.T) {
	end := make(chan struct{})
	go stays(end)
	time.AfterFunc(20*time.Millisecond, func() { close(end) })
	if left := leak.Goroutines(); len(left) != 0 {
		t.Errorf("left are\n%s", strings.Join(left, "\n\n"))
	}
}

func TestAGoroutineThatStaysIsNamed(t *testing.T) {
	end := make(chan struct{})
	defer close(end)
	go stays(end)
	if left := leak.Goroutines(); len(left) != 1 || !strings.Contains(left[0], "leak_test.stays") {
		t.Errorf("left are\n%s", strings.Join(left, "\n\n"))
	}
}

func TestMainFailsIfAGoroutineIsLeft(t *testing.T) {
	for _, leaks := range []bool{false, true} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		if leaks {
			cmd.Env = append(os.Environ(), "USHER_TEST_LEAK=1")
		}
		out, err := cmd.CombinedOutput()
		if (err != nil) != leaks || strings.Contains(string(out), "leak_test.stays") != leaks {
			t.Errorf("with a leak %t: %v\n%s", leaks, err, out)
		}
	}
}
