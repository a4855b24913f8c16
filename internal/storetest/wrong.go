package storetest

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// wrongStore is the environment variable that names a wrong store.
const wrongStore = "USHER_WRONG_STORE"

// Wrong returns the name of the wrong store that a test must run its suite against. It
// skips the test unless [WantFailures] runs it.
func Wrong(t *testing.T) string {
	t.Helper()
	name, ok := os.LookupEnv(wrongStore)
	if !ok {
		t.Skip("storetest.WantFailures runs it")
	}
	return name
}

// WantFailures shows that a suite finds the fault of each of these wrong stores, which are
// listed by name. It runs the named test of the calling package for each store, in a
// process of its own, in which [Wrong] returns the name of the store. Only the row of the
// suite that row returns is run, and it must fail; an empty row means the whole test.
func WantFailures[W any](t *testing.T, test string, stores map[string]W, row func(W) string) {
	t.Helper()
	// Most of these processes only wait.
	turns := make(chan struct{}, 8)
	var running sync.WaitGroup
	for name, w := range stores {
		running.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			wantFailure(t, test, name, row(w))
		})
	}
	running.Wait()
}

func wantFailure(t *testing.T, test, name, row string) {
	t.Helper()
	run, failed := "^"+test+"$", "--- FAIL: "+test
	if row != "" {
		row = strings.ReplaceAll(row, " ", "_")
		run, failed = run+"/^"+regexp.QuoteMeta(row)+"$", failed+"/"+row
	}
	var out []byte
	var err error
	// A fault that needs two calls at once may hide on a busy machine, but not again and again.
	for range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+run, "-test.timeout=2m") //nolint:gosec // This test itself.
		cmd.Env = append(os.Environ(), wrongStore+"="+name)
		if out, err = cmd.CombinedOutput(); err != nil {
			break
		}
	}
	switch {
	case err == nil:
		t.Errorf("%s: the suite passes", name)
	case !strings.Contains(string(out), failed):
		t.Errorf("%s: the row %q does not fail, but %v:\n%s", name, row, err, out)
	}
}
