package ratelimit_test

import (
	"errors"
	"flag"
	"math/big"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ratelimit/ratelimittest"
)

// catchUp lets the instants of a usage go back with the clock.
func catchUp(u *modelUsage, now int64) error {
	if most := new(big.Rat).Add(big.NewRat(now, 1), u.span(max(u.limit.Burst(), u.most))); u.full.Cmp(most) > 0 {
		u.full.Set(most)
	}
	for i := range u.stamps {
		u.stamps[i].at = min(u.stamps[i].at, now)
	}
	return nil
}

func isAhead(u *modelUsage, now int64) bool {
	most := new(big.Rat).Add(big.NewRat(now, 1), u.span(u.limit.Burst()))
	return u.full.Cmp(most) > 0 || len(u.stamps) > 0 && u.stamps[len(u.stamps)-1].at > now
}

var wrong = flag.String("wrong", "", "how the model of TestWrongClock deals with a clock that is set back")

var clockMistakes = map[string]func(u *modelUsage, now int64) error{
	"waits until the clock has caught up": func(*modelUsage, int64) error { return nil },
	"takes what is in the future for corrupt": func(u *modelUsage, now int64) error {
		if isAhead(u, now) {
			return errors.New("corrupt")
		}
		return nil
	},
	"does not count what is in the future": func(u *modelUsage, now int64) error {
		if now < time.Date(2026, 5, 5, 12, 0, 0, 0, time.UTC).UnixMicro() {
			u.full, u.stamps = big.NewRat(now, 1), nil
		}
		return nil
	},
}

func clockOf(ahead func(*modelUsage, int64) error) func(testing.TB) (ratelimit.Store, func(time.Time)) {
	return func(testing.TB) (ratelimit.Store, func(time.Time)) {
		var now int64
		m := newModel(func() int64 { return now })
		m.ahead = ahead
		return m, func(t time.Time) { now = t.UnixMicro() }
	}
}

func TestTheClockOfAModelMayGoBack(t *testing.T) { ratelimittest.TestClock(t, clockOf(catchUp)) }

func TestWrongClock(t *testing.T) {
	ahead, ok := clockMistakes[*wrong]
	if !ok {
		t.Skip("run by TestWrongClocksFail")
	}
	ratelimittest.TestClock(t, clockOf(ahead))
}

func TestWrongClocksFail(t *testing.T) {
	for name := range clockMistakes {
		for _, row := range []string{"token_bucket", "rolling_window"} {
			t.Run(name+"/"+row, func(t *testing.T) {
				cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWrongClock$/^"+row+"$", "-wrong", name) //nolint:gosec // this test itself
				out, err := cmd.CombinedOutput()
				if err == nil || !strings.Contains(string(out), "--- FAIL: TestWrongClock/"+row) {
					t.Errorf("no failure, but %v:\n%s", err, out)
				}
			})
		}
	}
}
