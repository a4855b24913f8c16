// Package nodes tests limiters of several processes that share one real server. Only tests
// import it.
package nodes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// A Server is a server of rate limits, and what a test can do to it.
type Server struct {
	// Open returns the store of another process. It is closed when its test ends.
	Open func(testing.TB) ratelimit.Store
	// SetClock sets the clock by which a store decides.
	SetClock func(ratelimit.Store, func() time.Time)
	// Cut loses the reply to the next call of each store that is open.
	Cut func()
	// Reset resets the connections of all stores.
	Reset func()
	// Crash kills the server and starts it again, with all data. Nil means that the data
	// would be lost.
	Crash func()
	// Pause stops the server until resume is called.
	Pause func() (resume func())
}

// Test runs all tests of this package.
func Test(t *testing.T, s Server) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Server)
	}{
		{"a node that dies gives back what it has reserved", deadNodes},
		{"a node that lives keeps what it has reserved", liveNodes},
		{"nobody overspends a budget", budgets},
		{"the debt of a key is what its requests have overrun", debts},
		{"a key that is reset and looked at", resets},
		{"a server that is paused resets and shows nothing", pausedResets},
		{"concurrent callers take what there is", callers},
		{"concurrent callers take no more while the server fails", faults},
		{"responses do not wait for a server that is paused", endings},
		{"a window that begins at an anchor ends for all nodes", anchors},
		{"nodes with the limit of yesterday and that of today", deploys},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, s) })
	}
}

// patience is a timeout that a loaded machine keeps.
const patience = 20 * time.Second

// limits have a quota each, and periods that no test outlasts.
func limits(quota int) map[string]ratelimit.Limit {
	return map[string]ratelimit.Limit{
		"token bucket":    ratelimit.TokenBucket(1, 24*time.Hour, quota),
		"rolling window":  ratelimit.RollingWindow(quota, 24*time.Hour),
		"calendar window": ratelimit.CalendarWindow(quota, ratelimit.Year).From(time.Now().AddDate(0, -6, 0)),
	}
}

// serial makes names that no other test has used.
var serial atomic.Int64

func unique(name string) string { return fmt.Sprintf("%s-%d", name, serial.Add(1)) }

// node returns the limiter of another process. The test fails if its store does, unless change
// sets OnError.
func node(t testing.TB, store ratelimit.Store, change func(*ratelimit.Config), policies ...ratelimit.Policy) *ratelimit.Limiter {
	t.Helper()
	c := ratelimit.Config{
		Store: store, StoreTimeout: patience, OnStoreFailure: ratelimit.FailClosed, Policies: policies,
		OnError: func(_ context.Context, err error) { t.Error(err) },
	}
	if change != nil {
		change(&c)
	}
	l, err := ratelimit.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// pair returns the limiters of two processes with the same policies.
func pair(t testing.TB, s Server, change func(*ratelimit.Config), policies ...ratelimit.Policy) []*ratelimit.Limiter {
	t.Helper()
	return []*ratelimit.Limiter{
		node(t, s.Open(t), change, policies...), node(t, s.Open(t), change, policies...),
	}
}

var somebody = ratelimit.TextKey("somebody")

func counts(name string, l ratelimit.Limit) ratelimit.Policy {
	return ratelimit.Policy{
		Name: name, Limit: l,
		Key: func(*http.Request) (ratelimit.Key, bool) { return somebody, true },
	}
}

// allow reports whether l admits a cost.
func allow(t testing.TB, l *ratelimit.Limiter, cost int) bool {
	t.Helper()
	_, err := l.Allow(context.Background(), cost, somebody)
	var refused *ratelimit.RefusedError
	if err != nil && !errors.As(err, &refused) {
		t.Errorf("Allow: %v", err)
	}
	return err == nil
}

// peek returns what is left under each policy of l.
func peek(t testing.TB, l *ratelimit.Limiter) []ratelimit.Usage {
	t.Helper()
	u, err := l.Peek(context.Background(), somebody)
	if err != nil {
		t.Fatalf("Peek: %v", err)
	}
	return u
}

// wantLeft fails the test unless each policy of each limiter has this much left.
func wantLeft(t testing.TB, want int64, all ...*ratelimit.Limiter) {
	t.Helper()
	for i, l := range all {
		for _, u := range peek(t, l) {
			if u.Remaining != want {
				t.Errorf("node %d: %d left under %s, want %d", i, u.Remaining, u.Limit, want)
			}
		}
	}
}

// end waits until all limiters have ended their requests in the store.
func end(t testing.TB, all ...*ratelimit.Limiter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, l := range all {
		if err := l.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	}
}

// request serves a request that costs this many units, and returns the status.
func request(l *ratelimit.Limiter, cost int, next http.HandlerFunc) int {
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
	r.Header.Set("Cost", strconv.Itoa(cost))
	l.ServeNext(w, r, next)
	return w.Code
}

// costs makes p charge what [request] asks for.
func costs(p ratelimit.Policy) ratelimit.Policy {
	p.Cost = func(r *http.Request) int {
		n, _ := strconv.Atoi(r.Header.Get("Cost"))
		return n
	}
	return p
}

// each calls f for n clients of each of the limiters at the same time.
func each(all []*ratelimit.Limiter, n int, f func(l *ratelimit.Limiter, node, client int)) {
	var clients sync.WaitGroup
	for i, l := range all {
		for j := range n {
			clients.Go(func() { f(l, i, j) })
		}
	}
	clients.Wait()
}

// eventually fails the test unless f returns true in time.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// unavailable reports whether an error is that of a store that has failed.
func unavailable(err error) bool { return errors.Is(err, usher.ErrUnavailable) }
