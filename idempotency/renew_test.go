package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// A batch is a call of Renew.
type batch struct {
	at     time.Duration
	claims []idempotency.ClaimID
}

// A fleet runs many requests at once on a store that records the calls of Renew.
type fleet struct {
	idempotency.Store
	t     *testing.T
	m     *idempotency.Middleware
	began time.Time
	// renew, if not nil, is called in place of the store.
	renew func(ctx context.Context, claims []idempotency.ClaimID, renew func() ([]idempotency.ClaimID, error)) ([]idempotency.ClaimID, error)

	mu       sync.Mutex
	batches  []batch
	keys     map[string]idempotency.ClaimID // by the key of the client
	lost     map[string]bool                // as their handlers have noticed
	reported []error

	running sync.WaitGroup
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{
		Store: newMemory(t, idempotency.MemoryConfig{}), t: t, began: time.Now(),
		keys: make(map[string]idempotency.ClaimID), lost: make(map[string]bool),
	}
	f.m = newMiddleware(t, idempotency.Config{Store: f, OnError: func(_ context.Context, err error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.reported = append(f.reported, err)
	}})
	return f
}

func (f *fleet) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) ([]idempotency.ClaimID, error) {
	f.mu.Lock()
	f.batches = append(f.batches, batch{time.Since(f.began), slices.Clone(claims)})
	f.mu.Unlock()
	renew := func() ([]idempotency.ClaimID, error) { return f.Store.Renew(ctx, claims, lease) }
	if f.renew != nil {
		return f.renew(ctx, claims, renew)
	}
	return renew()
}

// run starts n requests, one after each pause. They run for d.
func (f *fleet) run(n int, pause, d time.Duration) {
	h := f.m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := idempotency.From(r.Context())
		k := r.Header.Get("Idempotency-Key")
		f.mu.Lock()
		f.keys[k] = e.ClaimID()
		f.mu.Unlock()
		select {
		case <-lost(e):
			f.mu.Lock()
			f.lost[k] = true
			f.mu.Unlock()
		case <-time.After(d):
		}
		w.WriteHeader(http.StatusCreated)
	}))
	for i := range n {
		f.running.Go(func() {
			if w := do(h, post("/", "", key(fmt.Sprint(i)))); w.Code != http.StatusCreated {
				f.t.Errorf("request %d got %d %s", i, w.Code, w.Body)
			}
		})
		time.Sleep(pause)
	}
}

// calls returns the calls of Renew from an instant on.
func (f *fleet) calls(from time.Duration) (calls []batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.batches {
		if b.at >= from {
			calls = append(calls, b)
		}
	}
	return calls
}

// wantLost fails the test unless the claims of these keys are lost, and no others.
func (f *fleet) wantLost(keys ...string) {
	f.t.Helper()
	f.running.Wait()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lost) != len(keys) {
		f.t.Errorf("%d claims are lost, want %d", len(f.lost), len(keys))
	}
	for _, k := range keys {
		if !f.lost[k] {
			f.t.Errorf("the claim of %s is not lost", k)
		}
	}
	if n := f.m.Leases(); n != 0 {
		f.t.Errorf("%d leases are still kept", n)
	}
}

func TestAllRequestsInFlightShareTheCallsOfRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests = 500
		f := newFleet(t)
		// They begin at any time in one lease.
		f.run(requests, lease/requests, 5*lease)
		if n := len(f.calls(0)); n > 7 {
			t.Errorf("%d calls in the first lease", n)
		}
		time.Sleep(lease)
		from := time.Since(f.began)
		time.Sleep(2 * lease)
		calls := f.calls(from)
		if len(calls) != 6 {
			t.Errorf("%d calls in 2 leases, want 6", len(calls))
		}
		for _, c := range calls {
			if len(c.claims) != requests {
				t.Errorf("a call has %d claims, want %d", len(c.claims), requests)
			}
		}
		f.wantLost()
		f.wantInTime()
	})
}

// wantInTime fails the test if a lease was not renewed after a third of it.
func (f *fleet) wantInTime() {
	f.t.Helper()
	last := make(map[idempotency.ClaimID]time.Duration)
	for _, b := range f.calls(0) {
		for _, c := range b.claims {
			if at, ok := last[c]; ok && b.at-at > lease/3 {
				f.t.Errorf("a lease was renewed at %v and then at %v", at, b.at)
			}
			last[c] = b.at
		}
	}
	if len(last) == 0 {
		f.t.Error("no lease was renewed")
	}
}

// Requests that are short cause no calls, however many there are at a time.
func TestShortRequestsAreNotRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.run(3000, lease/1000, lease/slackPerLease)
		f.wantLost()
		if n := len(f.calls(0)); n != 0 {
			t.Errorf("%d calls of Renew", n)
		}
	})
}

// slackPerLease is what part of a lease a renewal may be early.
const slackPerLease = 6

func TestACallOfRenewHasAtMost1000Claims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.run(2500, time.Microsecond, lease)
		f.wantLost()
		sizes := map[int]int{}
		for _, c := range f.calls(0) {
			sizes[len(c.claims)]++
		}
		for size := range sizes {
			if size > 1000 {
				t.Errorf("a call has %d claims", size)
			}
		}
		if sizes[1000] < 4 {
			t.Errorf("calls by size: %v", sizes)
		}
	})
}

func TestALostClaimConcernsItsOwnRequest(t *testing.T) {
	for _, n := range []int{1, 2, 500} {
		t.Run(fmt.Sprint("of ", n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				f.renew = func(_ context.Context, _ []idempotency.ClaimID, renew func() ([]idempotency.ClaimID, error)) ([]idempotency.ClaimID, error) {
					lost, err := renew()
					f.mu.Lock()
					defer f.mu.Unlock()
					// Claims that are not in the call count for nothing.
					return append(lost, f.keys["0"], idempotency.ClaimID{}, idempotency.ClaimID{Key: f.keys["1"].Key}), err
				}
				f.run(n, time.Millisecond, 2*lease)
				f.wantLost("0")
				if len(f.reported) != 1 || !errors.Is(f.reported[0], idempotency.ErrLost) {
					t.Errorf("OnError got %v", f.reported)
				}
			})
		})
	}
}

// misbehaving are ways in which a call of Renew has no result. Each ends in the end.
var misbehaving = map[string]func(ctx context.Context) ([]idempotency.ClaimID, error){
	"fails":                func(context.Context) ([]idempotency.ClaimID, error) { return nil, errDown },
	"panics":               func(context.Context) ([]idempotency.ClaimID, error) { panic("bug") },
	"hangs":                func(ctx context.Context) ([]idempotency.ClaimID, error) { <-ctx.Done(); return nil, ctx.Err() },
	"ignores its context":  func(context.Context) ([]idempotency.ClaimID, error) { time.Sleep(5 * lease); return nil, errDown },
	"returns ErrLost":      func(context.Context) ([]idempotency.ClaimID, error) { return nil, idempotency.ErrLost },
	"fails and names some": nil,
}

// A call of Renew that has no result is retried, and no claim is lost by it.
func TestARenewalThatHasNoResultDisturbsNoRequest(t *testing.T) {
	for name, misbehave := range misbehaving {
		for _, c := range []struct {
			name        string
			from, until time.Duration
		}{
			{"once", 0, 0}, // the first call
			{"from the beginning", 0, 2 * lease / 3},
			{"later", 2 * lease, 2*lease + lease/2},
		} {
			if c.until > 0 && strings.HasPrefix(name, "ignores") {
				continue // only so many calls may hang
			}
			t.Run(fmt.Sprintf("%s it %s", c.name, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFleet(t)
					var calls atomic.Int32
					f.renew = func(ctx context.Context, claims []idempotency.ClaimID, renew func() ([]idempotency.ClaimID, error)) ([]idempotency.ClaimID, error) {
						since, first := time.Since(f.began), calls.Add(1) == 1
						switch {
						case !first && (since < c.from || since > c.until), first && c.from > 0:
							return renew()
						case misbehave == nil:
							return claims, errDown
						}
						return misbehave(ctx)
					}
					f.run(500, time.Millisecond, 4*lease)
					f.wantLost()
					// All calls that fail at a time are reported once.
					if n := len(f.reported); n < 1 || n > 1+int((c.until-c.from)/(lease/12)) {
						t.Errorf("OnError got %d errors", n)
					}
					time.Sleep(10 * lease)
				})
			})
		}
	}
}

// Renewals that hang delay no result.
func TestRenewalsThatHangDelayNoResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var calls atomic.Int32
		end := make(chan struct{})
		f.renew = func(context.Context, []idempotency.ClaimID, func() ([]idempotency.ClaimID, error)) ([]idempotency.ClaimID, error) {
			calls.Add(1)
			<-end
			return nil, errDown
		}
		f.run(300, time.Millisecond, lease*3/4)
		f.running.Wait()
		if n := calls.Load(); n < 64 {
			t.Errorf("%d calls hang, want all that may", n)
		}
		if d := time.Since(f.began); d > lease*3/4+time.Second {
			t.Errorf("the responses took %v", d)
		}
		if n, _ := f.m.Pending(); n != 0 {
			t.Errorf("%d results are pending", n)
		}
		close(end)
		f.wantLost()
	})
}

// Calls of Renew that have no result because of one of their claims, for instance because
// a transaction has locked its record, concern its request alone.
func TestAClaimThatCannotBeRenewedConcernsItsOwnRequest(t *testing.T) {
	for name, misbehave := range misbehaving {
		for _, n := range []int{2, 7, 1000} {
			t.Run(fmt.Sprintf("of %d it %s", n, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFleet(t)
					f.renew = func(ctx context.Context, claims []idempotency.ClaimID, renew func() ([]idempotency.ClaimID, error)) ([]idempotency.ClaimID, error) {
						f.mu.Lock()
						bad := f.keys["0"]
						f.mu.Unlock()
						switch {
						case !slices.Contains(claims, bad):
							return renew()
						case misbehave == nil:
							return claims, errDown
						}
						return misbehave(ctx)
					}
					f.run(n, time.Millisecond, 4*lease)
					f.wantLost("0")
					time.Sleep(10 * lease)
				})
			})
		}
	}
	t.Run("most of 40", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			bad := make([]string, 36)
			for i := range bad {
				bad[i] = fmt.Sprint(i)
			}
			f.renew = func(_ context.Context, claims []idempotency.ClaimID, renew func() ([]idempotency.ClaimID, error)) ([]idempotency.ClaimID, error) {
				f.mu.Lock()
				defer f.mu.Unlock()
				for _, k := range bad {
					if slices.Contains(claims, f.keys[k]) {
						return nil, errDown
					}
				}
				return renew()
			}
			f.run(40, time.Millisecond, 4*lease)
			f.wantLost(bad...)
		})
	})
}

// While the result of one request is pending and the store hangs when it is to take it,
// the leases of others are renewed in time, and so is its own.
func TestAPendingResultDelaysNoRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		h := f.m.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		hang := &hookedStore{Store: f.Store}
		down(hang, 3*lease, false)
		f.Store = hang
		for i := range 10 {
			do(h, post("/", "", key(fmt.Sprint("pending-", i))))
		}
		hang.set(func(s *hookedStore) {
			next := s.finish
			s.finish = func(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
				if kept, err := next(ctx, c); err == nil {
					return kept, err
				}
				<-ctx.Done()
				return 0, ctx.Err()
			}
		})
		if n, _ := f.m.Pending(); n != 10 {
			t.Fatalf("%d are pending", n)
		}
		f.run(100, time.Millisecond, 2*lease)
		time.Sleep(2 * lease)
		f.wantInTime()
		time.Sleep(lease)
		f.wantLost()
		if n, _ := f.m.Pending(); n != 0 {
			t.Errorf("%d are still pending", n)
		}
		for _, err := range f.reported {
			if !strings.Contains(err.Error(), "will retry") {
				t.Errorf("OnError got %v", err)
			}
		}
	})
}

// The lease counts from before the claim: the reply may have been slow.
func TestALeaseCountsFromTheCallOfClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 200 * time.Millisecond
		store := newHookedStore(t)
		store.claim = func(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
			r, err := store.Store.Claim(ctx, c)
			time.Sleep(delay)
			return r, err
		}
		store.renew = func(context.Context) error { return errDown }
		h := newMiddleware(t, idempotency.Config{Store: store}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			began := time.Now()
			<-lost(idempotency.From(r.Context()))
			if d := time.Since(began); d != lease-delay {
				t.Errorf("the handler is notified after %v, want %v", d, lease-delay)
			}
		}))
		do(h, post("/", ""))
	})
}
