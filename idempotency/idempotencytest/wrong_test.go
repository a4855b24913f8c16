package idempotencytest_test

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/idempotency/idempotencytest"
)

var wrong = flag.String("wrong", "", "how the store is wrong that a test of wrong stores runs the suite against")

// A suite is one of the suites of this package, against stores that are wrong in one way
// each.
type suite struct {
	test string // the name of the test that runs it against the store of the flag
	// wrongs are the ways in which a store is wrong, with the row that must fail.
	wrongs map[string]string
}

// The suites that wrong stores fail.
var suites = []suite{
	{"TestWrongStore", wrongStores},
	{"TestWrongShared", wrongShared},
	{"TestWrongTx", wrongTx},
}

// TestWrongStoresFail runs the row that must fail in a process of its own for each wrong
// store.
func TestWrongStoresFail(t *testing.T) {
	for _, s := range suites {
		for name, row := range s.wrongs {
			t.Run(s.test+" "+name, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				row := strings.ReplaceAll(row, " ", "_")
				cmd := exec.CommandContext(ctx, os.Args[0], "-wrong", name, //nolint:gosec // this test itself
					"-test.run=^"+s.test+"$/^"+regexp.QuoteMeta(row)+"$")
				out, err := cmd.CombinedOutput()
				if err == nil {
					t.Fatal("the suite passes")
				}
				if !strings.Contains(string(out), "--- FAIL: "+s.test+"/"+row) {
					t.Errorf("the row %s does not fail:\n%s", row, out)
				}
			})
		}
	}
}

// isWrong skips a test of wrong stores that is not run by TestWrongStoresFail.
func isWrong(t *testing.T) string {
	if *wrong == "" {
		t.Skip("run by TestWrongStoresFail")
	}
	return *wrong
}

func TestWrongStore(t *testing.T) {
	wrong := isWrong(t)
	idempotencytest.TestStore(t, func(testing.TB) idempotency.Store { return newTable(wrong) })
}
