package usher_test

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	_ "github.com/usher-go/usher/apikey"
	_ "github.com/usher-go/usher/clientip"
	_ "github.com/usher-go/usher/envelope"
	_ "github.com/usher-go/usher/idempotency"
	_ "github.com/usher-go/usher/jwtauth"
	_ "github.com/usher-go/usher/jwtauth/jwk"
	_ "github.com/usher-go/usher/jwtauth/session"
	_ "github.com/usher-go/usher/ratelimit"
)

// TestImportingStartsNoGoroutine looks at a process that has only initialized every
// package: it runs this test alone in a new process.
func TestImportingStartsNoGoroutine(t *testing.T) {
	if os.Getenv("USHER_TEST_ALONE") == "" {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "USHER_TEST_ALONE=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for goroutine := range strings.SplitSeq(string(stacks), "\n\n") {
		own := strings.Contains(goroutine, t.Name())
		if strings.Contains(goroutine, "github.com/usher-go/usher") && !own {
			t.Errorf("running before any constructor was called:\n%s", goroutine)
		}
	}
}
