package ratelimit_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/faulty"
	"github.com/usher-go/usher/internal/oteltest"
	"github.com/usher-go/usher/ratelimit"
)

// What the store may have refunded is not refunded again, whether it was charged within the
// limit or beyond it.
func TestAnUnknownRefundOfWhatIsChargedIsNotRepeated(t *testing.T) {
	for name, c := range map[string]struct {
		overrun ratelimit.Overrun
		limit   ratelimit.Limit
		settle  []int // the last one has no known result
	}{
		"within the limit": {ratelimit.ForgiveOverrun, ratelimit.CalendarWindow(100, ratelimit.Year), []int{10, 4}},
		"beyond it":        {ratelimit.OweOverrun, ratelimit.TokenBucket(100, 1000*time.Hour, 100), []int{130, 110}},
		"back within it":   {ratelimit.OweOverrun, ratelimit.TokenBucket(100, 1000*time.Hour, 100), []int{130, 50}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := forAll("units", c.limit)
				p.Settle, p.Cost, p.Overrun = true, func(*http.Request) int { return 0 }, c.overrun
				p.Count = func(status int) bool { return status < 500 }
				store := &script{Memory: newMemory()}
				l := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Store: store, OnError: func(context.Context, error) {}})
				others := []ratelimit.Charge{{Policy: "units", Limit: p.Limit, Cost: 20}}
				if _, err := take(t.Context(), store.Memory, others); err != nil {
					t.Fatal(err)
				}
				do(l.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					for i, n := range c.settle {
						if i == len(c.settle)-1 {
							store.adjust = func(ctx context.Context, d *ratelimit.Decision) error {
								return errors.Join(store.Memory.Adjust(ctx, d), faulty.ErrStore) // done, but not confirmed
							}
						}
						_ = ratelimit.Settle(r.Context(), "units", n)
					}
					w.WriteHeader(http.StatusInternalServerError)
				})))
				shutDown(t, l)
				others[0].Cost = 0
				if _, err := take(t.Context(), store.Memory, others); err != nil || others[0].Remaining != 80 {
					t.Errorf("%d left of 100, of which others have used 20 (%v)", others[0].Remaining, err)
				}
			})
		})
	}
}

// A request that has lowered what it reserves, or has ended its reservation, is charged no
// more at its end, whatever the store has made of that.
func TestALowerCostHoldsThoughTheStoreFails(t *testing.T) {
	for name, c := range map[string]struct {
		settle int
		fault  error
	}{
		"lowered, and the store fails":      {4, faulty.ErrStore},
		"lowered, and the store moves none": {4, nil},
		"ended, and the store fails":        {0, faulty.ErrStore},
	} {
		t.Run(name, func(t *testing.T) {
			p := forAll("units", ratelimit.CalendarWindow(100, ratelimit.Year))
			p.Settle, p.Cost = true, func(*http.Request) int { return 10 }
			store := &script{Memory: newMemory()}
			var last ratelimit.Charge
			store.adjust = func(_ context.Context, d *ratelimit.Decision) error {
				last = d.Charges[0]
				return c.fault
			}
			l := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, Store: store, OnError: func(context.Context, error) {}})
			do(l.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if err := ratelimit.Settle(r.Context(), "units", c.settle); !errors.Is(err, c.fault) {
					t.Error(err)
				}
				last = ratelimit.Charge{}
			})))
			if shutDown(t, l); !last.Hold || !last.EndHold || last.Cost != int64(c.settle) {
				t.Errorf("the request ended with %+v", last)
			}
		})
	}
}

// A reservation that was lost charges what is left, unless the policy has OweOverrun.
func TestALostReservationChargesNothingThatIsForgiven(t *testing.T) {
	for _, c := range []struct {
		overrun ratelimit.Overrun
		wait    time.Duration // until a unit is left
	}{{ratelimit.ForgiveOverrun, time.Hour}, {ratelimit.OweOverrun, 61 * time.Hour}} {
		synctest.Test(t, func(t *testing.T) {
			p := forAll("units", ratelimit.TokenBucket(1, time.Hour, 100))
			p.Settle, p.Cost, p.Overrun = true, func(*http.Request) int { return 60 }, c.overrun
			store := &script{Memory: newMemory(), renew: func(context.Context, []ratelimit.Place) ([]ratelimit.Place, error) {
				return nil, faulty.ErrStore
			}}
			l := newLimiter(t, ratelimit.Config{
				Policies: []ratelimit.Policy{p}, Store: store, Lease: lease, OnError: func(context.Context, error) {},
			})
			charges := []ratelimit.Charge{{Policy: "units", Limit: p.Limit, Cost: 100}}
			do(l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				time.Sleep(2 * lease)
				if d, err := take(t.Context(), store.Memory, charges); err != nil || !d {
					t.Errorf("the reservation has not ended: %v", err)
				}
			})))
			shutDown(t, l)
			charges[0].Cost = 1
			if _, err := take(t.Context(), store.Memory, charges); err != nil || charges[0].Wait.Round(time.Minute) != c.wait {
				t.Errorf("overrun %d: a wait of %v (%v), want %v", c.overrun, charges[0].Wait, err, c.wait)
			}
		})
	}
}

// What an inner limiter has refused is refunded, though Count would charge the refusal.
func TestCountChargesNoRefusal(t *testing.T) {
	p := forAll("p", ratelimit.RollingWindow(2, time.Hour))
	p.Count = func(int) bool { return true }
	outer := limiterOf(t, p)
	h := outer.Wrap(must(t)(outer.With(forAll("none", ratelimit.Nothing()))).Wrap(ok))
	wantCodes(t, codes(5, h), 429, 429, 429, 429, 429)
	wantCodes(t, codes(3, outer.Wrap(ok)), 200, 200, 429)
}

// A request that a policy in shadow would refuse has no place, and gives none back.
func TestARequestWithoutAPlaceFreesNone(t *testing.T) {
	shadow := forAll("places", ratelimit.Concurrency(1))
	shadow.Shadow = true
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			meter := new(oteltest.Meter)
			l := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{shadow}, Store: store(), MeterProvider: meter})
			do(l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				codes(3, l.Wrap(ok)) // each finds the place in use
			})))
			shutDown(t, l)
			if got := results(meter); got["shadow_refused"] != 3 || got["acquired"] != 4 {
				t.Errorf("counted %v", got)
			}
		})
	}
}
