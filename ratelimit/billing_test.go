package ratelimit_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// Each account has a billing period of its own: its quota is renewed in the second in which
// its month begins, by the clock of its zone.
func TestQuotasAreRenewedWithTheBillingPeriodOfEachAccount(t *testing.T) {
	const quota = 3
	for storeName, store := range stores {
		for _, c := range []struct {
			name, zone          string
			month               time.Month
			day, hour, min, sec int
		}{
			{"the 17th", "UTC", time.June, 17, 0, 0, 0},
			{"the 17th at noon in New York", "America/New_York", time.June, 17, 12, 0, 0},
			{"the 31st", "UTC", time.January, 31, 0, 0, 0},
			{"the 31st in Kolkata", "Asia/Kolkata", time.March, 31, 23, 59, 59},
			{"the 30th in Auckland", "Pacific/Auckland", time.November, 30, 6, 0, 0},
			{"the 29th of a leap year", "Europe/Berlin", time.February, 29, 9, 30, 15},
			{"the 1st", "Europe/Berlin", time.May, 1, 0, 0, 0},
		} {
			t.Run(storeName+", "+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { // from 2000-01-01 on
					in := zone(t, c.zone)
					anchor := time.Date(1996, c.month, c.day, c.hour, c.min, c.sec, 0, in)
					l := newLimiter(t, ratelimit.Config{Store: store(), Policies: []ratelimit.Policy{{
						Name: "month", Key: ratelimit.ByOwner(), Limit: ratelimit.Nothing(),
						LimitOf: func(_ context.Context, owner string) (ratelimit.Limit, error) {
							return ratelimit.CalendarWindow(quota, ratelimit.Month).In(in).From(anchor), nil
						},
					}}})
					key := ratelimit.OwnerKey("acme")
					renewed := 0
					for month := 1; month <= 26; month++ { // both kinds of February
						first := time.Date(2000, time.Month(month), 1, c.hour, c.min, c.sec, 0, in)
						last := first.AddDate(0, 1, -1).Day()
						next := first.AddDate(0, 0, min(c.day, last)-1)
						if !next.After(time.Now()) {
							continue
						}
						time.Sleep(time.Until(next) - time.Hour)
						wantAllowed(t, l, key, true, true, true, false)
						time.Sleep(30 * time.Minute)
						_, err := l.Allow(t.Context(), 1, key)
						if refused, _ := errors.AsType[*ratelimit.RefusedError](err); refused == nil || !time.Now().Add(refused.Wait).Equal(next) {
							t.Fatalf("%v, want a wait until %v", err, next)
						}
						time.Sleep(time.Until(next) - time.Nanosecond)
						wantAllowed(t, l, key, false)
						time.Sleep(time.Nanosecond)
						if usage, err := l.Peek(t.Context(), key); err != nil || usage[0].Remaining != quota {
							t.Fatalf("at %v: %+v, %v", next, usage, err)
						}
						renewed++
					}
					if renewed < 25 {
						t.Errorf("renewed %d times", renewed)
					}
				})
			})
		}
	}
}

// What was used before a change of the quota or of the billing date counts after it.
func TestAChangeOfTheBillingPeriodKeepsWhatWasUsed(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // from 2000-01-01 on
				var limit atomic.Pointer[ratelimit.Limit]
				set := func(quota, day int) {
					l := ratelimit.CalendarWindow(quota, ratelimit.Month).From(time.Date(1999, time.June, day, 0, 0, 0, 0, time.UTC))
					limit.Store(&l)
					time.Sleep(planTTL)
				}
				set(3, 17)
				l := newLimiter(t, ratelimit.Config{Store: store(), Policies: []ratelimit.Policy{{
					Name: "month", Key: ratelimit.ByOwner(), Limit: ratelimit.Nothing(),
					LimitOf: func(context.Context, string) (ratelimit.Limit, error) { return *limit.Load(), nil },
				}}})
				key := ratelimit.OwnerKey("acme")
				wantAllowed(t, l, key, true, true, true, false)
				set(5, 17) // an upgrade
				wantAllowed(t, l, key, true, true, false)
				set(5, 10) // another billing date
				wantAllowed(t, l, key, false)
				set(2, 17) // a downgrade
				wantAllowed(t, l, key, false)
				time.Sleep(time.Until(time.Date(2000, time.January, 17, 0, 0, 0, 0, time.UTC)))
				wantAllowed(t, l, key, true, true, false)
			})
		})
	}
}
