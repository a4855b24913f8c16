package ratelimit_test

import (
	"errors"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func TestCalendarWindow(t *testing.T) {
	berlin, kolkata, lordHowe := zone(t, "Europe/Berlin"), zone(t, "Asia/Kolkata"), zone(t, "Australia/Lord_Howe")
	for _, c := range []struct {
		name       string
		unit       ratelimit.Unit
		zone       *time.Location
		at         string
		start, end string
	}{
		{"a minute", ratelimit.Minute, time.UTC, "2026-03-01T10:20:30.5Z", "2026-03-01T10:20:00Z", "2026-03-01T10:21:00Z"},
		{"an hour", ratelimit.Hour, time.UTC, "2026-03-01T10:20:30Z", "2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z"},
		{"an hour in a zone of half hours", ratelimit.Hour, kolkata, "2026-03-01T10:20:30Z", "2026-03-01T09:30:00Z", "2026-03-01T10:30:00Z"},
		{"an hour that summer time repeats is two", ratelimit.Hour, berlin, "2026-10-25T01:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"},
		{"a day in UTC", ratelimit.Day, time.UTC, "2026-03-01T23:59:59.999Z", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"},
		{"a day begins at midnight of its zone", ratelimit.Day, berlin, "2026-03-01T23:30:00Z", "2026-03-01T23:00:00Z", "2026-03-02T23:00:00Z"},
		{"the day on which summer time begins has 23 hours", ratelimit.Day, berlin, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},
		{"the day on which it ends has 25", ratelimit.Day, berlin, "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},
		{"summer time of half an hour", ratelimit.Day, lordHowe, "2026-04-05T00:00:00Z", "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z"},
		{"a week begins on Monday", ratelimit.Week, time.UTC, "2026-11-22T10:00:00Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"},
		{"and Monday is in it", ratelimit.Week, time.UTC, "2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"},
		{"February", ratelimit.Month, time.UTC, "2026-02-28T23:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"},
		{"February of a leap year", ratelimit.Month, time.UTC, "2028-02-29T23:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"},
		{"December", ratelimit.Month, time.UTC, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"a year", ratelimit.Year, time.UTC, "2026-07-01T00:00:00Z", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at, _ := time.Parse(time.RFC3339Nano, c.at)
			start, end := ratelimit.CalendarWindow(1, c.unit).In(c.zone).Window(at)
			if got := start.UTC().Format(time.RFC3339Nano); got != c.start {
				t.Errorf("start = %s, want %s", got, c.start)
			}
			if got := end.UTC().Format(time.RFC3339Nano); got != c.end {
				t.Errorf("end = %s, want %s", got, c.end)
			}
		})
	}
}

func TestOtherLimitsHaveNoCalendarWindow(t *testing.T) {
	for name, l := range map[string]ratelimit.Limit{
		"the zero Limit":   {},
		"a token bucket":   ratelimit.TokenBucket(1, time.Hour, 1),
		"a rolling window": ratelimit.RollingWindow(1, time.Hour).In(zone(t, "Europe/Berlin")),
		"a concurrency":    ratelimit.Concurrency(1),
		"unlimited":        ratelimit.Unlimited(),
		"nothing":          ratelimit.Nothing(),
	} {
		if start, end := l.Window(time.Now()); !start.IsZero() || !end.IsZero() {
			t.Errorf("%s: the window is from %v to %v", name, start, end)
		}
	}
	if got, want := ratelimit.RollingWindow(1, time.Hour).In(time.UTC), ratelimit.RollingWindow(1, time.Hour); got != want {
		t.Errorf("a zone changes a rolling window to %v", got)
	}
}

func TestPerAddressAndPerPrincipalMakePolicies(t *testing.T) {
	address := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{ratelimit.PerAddress(2, time.Minute)}}).Wrap(ok)
	wantCodes(t, codes(3, address, from("192.0.2.1:1")), 200, 200, 429)
	wantCodes(t, codes(1, address, from("192.0.2.2:1")), 200)
	caller := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{ratelimit.PerPrincipal(2, time.Minute)}}).Wrap(ok)
	wantCodes(t, codes(3, caller, as(usher.Principal{ID: "1"})), 200, 200, 429)
	wantCodes(t, codes(1, caller, as(usher.Principal{ID: "2"})), 200)
	if got := do(caller).Header().Get("RateLimit-Policy"); got != `"principal";q=2;w=60` {
		t.Errorf("RateLimit-Policy = %s", got)
	}
}

func TestEveryFaultOfAConfigIsReportedAtOnce(t *testing.T) {
	_, err := ratelimit.New(ratelimit.Config{
		OnStoreFailure: 9,
		Headers:        99,
		StoreTimeout:   -1,
		Lease:          -1,
		Policies: []ratelimit.Policy{
			{Name: "no good", Limit: ratelimit.TokenBucket(0, 0, 0)},
			{Name: "twice", Key: ratelimit.Global(), Limit: ratelimit.Concurrency(1),
				Plans:  map[string]ratelimit.Limit{"pro": ratelimit.RollingWindow(1, time.Second)},
				Settle: true, Count: func(int) bool { return true }},
			{Name: "twice", Key: ratelimit.Global(), Limit: ratelimit.CalendarWindow(1, 0)},
			{Name: "none", Key: ratelimit.Global()},
			{Name: "nowhere", Key: ratelimit.Global(), Limit: ratelimit.CalendarWindow(1, ratelimit.Day).In(nil)},
		},
	})
	const at = "ratelimit.Config."
	for _, field := range []string{
		at + "OnStoreFailure", at + "Headers", at + "StoreTimeout", at + "Lease",
		at + "Policies[0].Name", at + "Policies[0].Key", at + "Policies[0].Limit",
		at + `Policies[1].Plans["pro"]`, at + "Policies[1].Count", at + "Policies[1].Settle",
		at + "Policies[2].Name", at + "Policies[2].Limit", at + "Policies[3].Limit", at + "Policies[4].Limit",
	} {
		if err == nil || !strings.Contains(err.Error(), field+": ") {
			t.Errorf("no fault reported for %s", field)
		}
	}
	if _, ok := errors.AsType[*usher.ConfigError](err); !ok {
		t.Errorf("%T holds no ConfigError", err)
	}
	if _, err := ratelimit.NewMemory(ratelimit.MemoryConfig{Keys: -1}); err == nil || !strings.Contains(err.Error(), "ratelimit.MemoryConfig.Keys: ") {
		t.Errorf("a negative number of keys: %v", err)
	}
	for _, c := range []ratelimit.Config{
		{Lease: 299 * time.Millisecond}, {Lease: 2 * time.Second, StoreTimeout: time.Second}, {Lease: 25 * time.Hour},
	} {
		c.Policies = []ratelimit.Policy{ratelimit.PerAddress(1, time.Minute)}
		if _, err := ratelimit.New(c); err == nil || !strings.Contains(err.Error(), at+"Lease: ") {
			t.Errorf("a lease of %v: %v", c.Lease, err)
		}
	}
	if _, err := ratelimit.New(ratelimit.Config{}); err == nil {
		t.Error("a limiter without policies is accepted")
	}
}
