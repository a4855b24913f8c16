package usherpg_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ratelimit/ratelimittest"
	"github.com/usher-go/usher/stores/usherpg"
)

// modes has the ways in which pools are used: the default, and that for PgBouncer. The
// tests for shared servers use a third, [pgx.QueryExecModeExec].
var modes = map[string]pgx.QueryExecMode{
	"prepared statements": pgx.QueryExecModeCacheStatement,
	"described":           pgx.QueryExecModeCacheDescribe,
}

func inMode(m pgx.QueryExecMode) func(*pgxpool.Config) {
	return func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = m }
}

func TestLimits(t *testing.T) {
	s := servers.Postgres(t)
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			// In a schema of its own, as the suite uses some IDs again.
			c := usherpg.Config{Pool: connect(t, s.Addr, inMode(mode)), Schema: name}
			if err := usherpg.Migrate(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			ratelimittest.TestStore(t, func(t testing.TB) ratelimit.Store {
				p, err := usherpg.Open(c)
				if err != nil {
					t.Fatal(err)
				}
				return p.Limits()
			})
		})
	}
}

// setClock makes p decide by a clock that the test sets.
func setClock(p *usherpg.Postgres) *time.Time {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	usherpg.SetClock(p, func() time.Time { return now })
	return &now
}

func TestUnreadableDataIsAnErrorThatNamesThePolicy(t *testing.T) {
	_, pool := migrated(t)
	p := open(t, pool)
	l := p.Limits()
	bucket, rolling, calendar := ratelimit.TokenBucket(5, time.Hour, 5), ratelimit.RollingWindow(5, time.Hour), ratelimit.CalendarWindow(5, ratelimit.Year)
	for name, c := range map[string]struct {
		limit  ratelimit.Limit
		poison string // of a usage
	}{
		"no usage":                      {bucket, "NULL::usher.usage"},
		"an algorithm of another kind":  {bucket, "ROW(9, 5, 5, 720000000, '', 0, 1, NULL, NULL, NULL, NULL, NULL)::usher.usage"},
		"no algorithm":                  {bucket, "ROW(NULL, 5, 5, 720000000, '', 0, 1, NULL, NULL, NULL, NULL, NULL)::usher.usage"},
		"a quota of zero":               {bucket, "ROW(1, 0, 5, 720000000, '', 0, 1, NULL, NULL, NULL, NULL, NULL)::usher.usage"},
		"a negative period":             {bucket, "ROW(1, 5, 5, -1, '', 0, 1, NULL, NULL, NULL, NULL, NULL)::usher.usage"},
		"negative units that missed":    {bucket, "ROW(1, 5, 5, 3600000000, '', -1, 1, NULL, NULL, NULL, NULL, NULL)::usher.usage"},
		"a bucket without an instant":   {bucket, "ROW(1, 5, 5, 3600000000, '', 0, NULL, NULL, NULL, NULL, NULL, NULL)::usher.usage"},
		"a bucket that is not a number": {bucket, "ROW(1, 5, 5, 3600000000, '', 0, 'NaN', NULL, NULL, NULL, NULL, NULL)::usher.usage"},
		"an infinite bucket":            {bucket, "ROW(1, 5, 5, 3600000000, '', 0, 'Infinity', NULL, NULL, NULL, NULL, NULL)::usher.usage"},
		"a bucket of negative time":     {bucket, "ROW(1, 5, 5, 3600000000, '', 0, -1, NULL, NULL, NULL, NULL, NULL)::usher.usage"},
		"half a stamp":                  {rolling, "ROW(2, 5, 0, 3600000000, '', 0, NULL, 1, '{1}', NULL, NULL, NULL)::usher.usage"},
		"no stamps":                     {rolling, "ROW(2, 5, 0, 3600000000, '', 0, NULL, 1, '{}', NULL, NULL, NULL)::usher.usage"},
		"stamps that are missing":       {rolling, "ROW(2, 5, 0, 3600000000, '', 0, NULL, 0, NULL, NULL, NULL, NULL)::usher.usage"},
		"a stamp that is missing":       {rolling, "ROW(2, 5, 0, 3600000000, '', 0, NULL, 1, '{NULL, 1}', NULL, NULL, NULL)::usher.usage"},
		"a wrong sum of stamps":         {rolling, "ROW(2, 5, 0, 3600000000, '', 0, NULL, 3, '{1, 1}', NULL, NULL, NULL)::usher.usage"},
		"more than the quota":           {rolling, "ROW(2, 5, 0, 3600000000, '', 0, NULL, 6, '{1, 6}', NULL, NULL, NULL)::usher.usage"},
		"a negative window":             {calendar, "ROW(3, 5, 0, 6, 'UTC', 0, NULL, -1, NULL, 1, 9000000000000000, 9100000000000000)::usher.usage"},
		"a window without an end":       {calendar, "ROW(3, 5, 0, 6, 'UTC', 0, NULL, 1, NULL, 1, NULL, NULL)::usher.usage"},
		"another limit":                 {rolling, "ROW(3, 7, 0, 6, 'UTC', 0, NULL, 8, NULL, 1, 9000000000000000, 9100000000000000)::usher.usage"},
	} {
		t.Run(name, func(t *testing.T) {
			exec(t, pool, "TRUNCATE usher.limits")
			charge := ratelimit.Charge{Policy: "poisoned", Key: ratelimit.TextKey("key"), Limit: c.limit, Cost: 1, Windows: windows(c.limit, time.Now())}
			beside := ratelimit.Charge{Policy: "beside", Key: ratelimit.TextKey("key"), Limit: rolling, Cost: 1}
			if err := l.Take(t.Context(), decision(charge)); err != nil {
				t.Fatal(err)
			}
			for place, array := range map[string]string{"first": "ARRAY[" + c.poison + "]", "second": "usages[:1] || " + c.poison} {
				exec(t, pool, "UPDATE usher.limits SET usages = "+array+" WHERE policy = 'poisoned'")
				for i, cost := range []int64{1, 0, -1} {
					call := l.Take
					if cost < 0 {
						call = l.Adjust
					}
					charge.Cost = cost
					d := decision(beside, charge)
					err := call(t.Context(), d)
					storetest.WantError(t, place, err, usher.ErrCorrupt)
					if err != nil && !strings.Contains(err.Error(), `"poisoned"`) {
						t.Errorf("%s, call %d: the error does not name the policy: %v", place, i, err)
					}
				}
			}
			if n := count(t, pool, "SELECT count(*) FROM usher.limits WHERE policy = 'beside'"); n != 0 {
				t.Error("a decision that failed has charged another policy")
			}
		})
	}
}

func TestUnreadableResultsAreNotRepeated(t *testing.T) {
	_, pool := migrated(t)
	l := open(t, pool).Limits()
	for _, poison := range []string{"admitted = NULL", "violated = NULL", "violated = '{NULL}'", "remaining = '{}'", "waits = '{1, 2}'"} {
		t.Run(poison, func(t *testing.T) {
			d := take(t, l, ratelimit.TokenBucket(1000, time.Hour, 1000))
			left := d.Charges[0].Remaining
			exec(t, pool, "UPDATE usher.calls SET "+poison)
			d.Admitted = false
			err := l.Take(t.Context(), d)
			storetest.WantError(t, "Take", err, usher.ErrCorrupt)
			if d.Admitted {
				t.Error("a decision whose results cannot be read is admitted")
			}
			if got := take(t, l, ratelimit.TokenBucket(1000, time.Hour, 1000)).Charges[0].Remaining; got != left-1 {
				t.Errorf("%d left, want %d", got, left-1)
			}
		})
	}
}

// windows returns the windows of a calendar limit at t.
func windows(l ratelimit.Limit, t time.Time) (w [2]ratelimit.Window) {
	w[0].Start, w[0].End = l.Window(t)
	w[1].Start, w[1].End = l.Window(w[0].End)
	return w
}

// A clock that was ahead must lock nobody out for longer than the limit can, and must give
// nobody a second allowance.
func TestAClockThatIsSetBackDelaysNoLongerThanTheLimit(t *testing.T) {
	_, pool := migrated(t)
	p := open(t, pool)
	now := setClock(p)
	l := p.Limits()
	for name, limit := range map[string]ratelimit.Limit{
		"token bucket":   ratelimit.TokenBucket(5, time.Minute, 5),
		"rolling window": ratelimit.RollingWindow(5, time.Minute),
	} {
		t.Run(name, func(t *testing.T) {
			exec(t, pool, "TRUNCATE usher.limits")
			began := *now
			defer func() { *now = began }()
			*now = began.Add(time.Hour)
			for range 5 {
				take(t, l, limit)
			}
			*now = began
			d := take(t, l, limit)
			if c := d.Charges[0]; d.Admitted || c.Wait <= 0 || c.Wait > time.Minute || c.Remaining != 0 {
				t.Errorf("admitted %v, remaining %d, wait %v, want a wait of at most a minute", d.Admitted, c.Remaining, c.Wait)
			}
			*now = began.Add(time.Minute)
			for i := range 5 {
				if !take(t, l, limit).Admitted {
					t.Errorf("request %d is refused a minute later", i)
				}
			}
			if take(t, l, limit).Admitted {
				t.Error("the sixth request is admitted")
			}
		})
	}
}

// Otherwise the time of a decision that has waited for another would be before that of the
// rows that it reads.
func TestTheClockIsReadAfterAllKeysAreLocked(t *testing.T) {
	_, pool := migrated(t)
	l := open(t, pool).Limits()
	a := ratelimit.Charge{Policy: "a", Limit: ratelimit.RollingWindow(5, time.Hour), Cost: 1}
	z := ratelimit.Charge{Policy: "z", Limit: ratelimit.Concurrency(5), Cost: 1, Lease: time.Minute}
	if err := l.Take(t.Context(), decision(a, z)); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func(*ratelimit.Decision) error{
		"Take":   func(d *ratelimit.Decision) error { return l.Take(t.Context(), d) },
		"Adjust": func(d *ratelimit.Decision) error { return l.Adjust(t.Context(), d) },
	} {
		t.Run(name, func(t *testing.T) {
			tx, err := pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), "SELECT FROM usher.limits WHERE policy = 'z' FOR UPDATE"); err != nil {
				t.Fatal(err)
			}
			d := decision(z, a)
			ended := make(chan error, 1)
			go func() { ended <- call(d) }()
			eventually(t, "the call does not wait", func(context.Context) error {
				if count(t, pool, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == 0 {
					return context.DeadlineExceeded
				}
				return nil
			})
			locked := count(t, pool, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			if at := count(t, pool, fmt.Sprintf("SELECT called_at FROM usher.calls WHERE seq = %d", d.ID.Seq)); at < locked {
				t.Errorf("decided at %d, but its keys were locked until after %d", at, locked)
			}
		})
	}
}

func TestTheClockOfTheServerMustBeInAWindowOfTheCaller(t *testing.T) {
	_, pool := migrated(t)
	p := open(t, pool)
	now := setClock(p)
	l := p.Limits()
	limit := ratelimit.CalendarWindow(5, ratelimit.Hour)
	beside := ratelimit.Charge{Policy: "a", Limit: ratelimit.RollingWindow(5, time.Hour), Cost: 1}
	for _, c := range []struct {
		ahead time.Duration
		want  error
	}{{0, nil}, {time.Hour, nil}, {2 * time.Hour, usher.ErrUnavailable}, {-time.Hour, nil}} {
		charge := ratelimit.Charge{Policy: "b", Key: ratelimit.TextKey(c.ahead.String()), Limit: limit, Cost: 1, Windows: windows(limit, now.Add(-c.ahead))}
		err := l.Take(t.Context(), decision(charge, beside))
		storetest.WantError(t, c.ahead.String(), err, c.want)
		if err != nil && !strings.Contains(err.Error(), "clocks") {
			t.Errorf("the error does not name the clocks: %v", err)
		}
	}
	d := decision(ratelimit.Charge{Policy: "a", Limit: beside.Limit})
	if err := l.Take(t.Context(), d); err != nil || d.Charges[0].Remaining != 2 {
		t.Errorf("remaining %d, error %v, want 2 after three decisions", d.Charges[0].Remaining, err)
	}
}

func TestAPeekWritesNothingAndWaitsForNobody(t *testing.T) {
	_, pool := migrated(t)
	l := open(t, pool).Limits()
	known := ratelimit.Charge{Policy: "known", Limit: ratelimit.RollingWindow(5, time.Hour), Cost: 2}
	if err := l.Take(t.Context(), decision(known)); err != nil {
		t.Fatal(err)
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), "SELECT FROM usher.limits FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	fresh := ratelimit.Charge{Policy: "new", Limit: ratelimit.Concurrency(5), Cost: 1, Lease: time.Minute}
	d := decision(known, fresh)
	d.Peek = true
	if err := l.Take(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if d.Charges[0].Remaining != 3 || d.Charges[1].Remaining != 5 {
		t.Errorf("%d and %d left, want 3 and 5", d.Charges[0].Remaining, d.Charges[1].Remaining)
	}
	for table, want := range map[string]int64{"limits": 1, "calls": 1, "places": 0} {
		if n := count(t, pool, "SELECT count(*) FROM usher."+table); int64(n) != want {
			t.Errorf("%d rows in %s, want %d", n, table, want)
		}
	}
}

func TestExpiredLimitsAreRemoved(t *testing.T) {
	_, pool := migrated(t)
	p := open(t, pool)
	now := setClock(p)
	l := p.Limits()
	const keys = 300
	for i := range keys {
		for policy, limit := range map[string]ratelimit.Limit{
			"bucket": ratelimit.TokenBucket(1, time.Minute, 2), "rolling": ratelimit.RollingWindow(2, time.Minute),
			"places": ratelimit.Concurrency(2), "calendar": ratelimit.CalendarWindow(5, ratelimit.Minute),
			"holds": ratelimit.RollingWindow(2, time.Minute),
		} {
			// One of three is in use for an hour.
			if i%3 == 0 {
				limit = map[string]ratelimit.Limit{
					"bucket": ratelimit.TokenBucket(1, time.Hour, 2), "rolling": ratelimit.RollingWindow(2, time.Hour),
					"places": limit, "holds": limit, "calendar": ratelimit.CalendarWindow(5, ratelimit.Hour),
				}[policy]
			}
			c := ratelimit.Charge{Policy: policy, Key: ratelimit.TextKey(string(rune(1000 + i))), Limit: limit, Cost: 1, Windows: windows(limit, *now), Lease: time.Minute, Hold: policy == "holds"}
			if i%3 == 0 {
				c.Lease = time.Hour
			}
			if err := l.Take(t.Context(), decision(c)); err != nil {
				t.Fatal(err)
			}
		}
	}
	sweep := func() {
		t.Helper()
		for range 2 + 5*keys/100 {
			exec(t, pool, "SELECT usher.remove_limits_v1(100, $1)", now.UnixMicro())
		}
		exec(t, pool, "SELECT usher.remove_calls_v1(10000, $1)", now.UnixMicro())
	}
	want := func(limits, places, calls int) {
		t.Helper()
		sweep()
		for table, want := range map[string]int{"limits": limits, "places": places, "calls": calls} {
			if n := count(t, pool, "SELECT count(*) FROM usher."+table); n != want {
				t.Errorf("%d rows in %s, want %d", n, table, want)
			}
		}
	}
	*now = now.Add(5 * time.Second)
	want(5*keys, 2*keys, 5*keys)
	*now = now.Add(time.Minute)
	want(5*keys, 2*keys, 0)
	*now = now.Add(time.Minute)
	want(5*keys/3, 2*keys/3, 0)
	*now = now.Add(time.Hour)
	want(0, 0, 0)
}

// Calls must remove exactly the rows that earlier calls leave behind, under the real clock
// too.
func TestCallsRemoveExpiredRowsOfEarlierCalls(t *testing.T) {
	_, pool := migrated(t)
	l := open(t, pool).Limits()
	exec(t, pool, `INSERT INTO usher.limits SELECT 'old', int4send(i), '{}', 1 FROM generate_series(1, 2000) AS i`)
	exec(t, pool, `INSERT INTO usher.calls SELECT 7, i, 1, false FROM generate_series(1, 2000) AS i`)
	left := func(context.Context) error {
		for range 100 {
			take(t, l, ratelimit.TokenBucket(1000, time.Second, 1000))
		}
		if count(t, pool, "SELECT (SELECT count(*) FROM usher.limits WHERE policy = 'old') + (SELECT count(*) FROM usher.calls WHERE node = 7)") > 0 {
			return context.DeadlineExceeded
		}
		return nil
	}
	eventually(t, "expired rows are left", left)
}

// A Reset locks keys in the order in which decisions do, also those that other calls make
// while it waits.
func TestAResetAndADecisionDoNotWaitForEachOther(t *testing.T) {
	_, pool := migrated(t)
	l := open(t, pool).Limits()
	key := ratelimit.TextKey("key")
	a := ratelimit.Charge{Policy: "a", Key: key, Limit: ratelimit.RollingWindow(5, time.Hour), Cost: 1}
	z := ratelimit.Charge{Policy: "z", Key: key, Limit: ratelimit.RollingWindow(5, time.Hour), Cost: 1}
	if err := l.Take(t.Context(), decision(z)); err != nil {
		t.Fatal(err)
	}
	begin := func(policy string) pgx.Tx {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
		lock(t, tx, policy)
		return tx
	}
	waiting := func(n int) {
		eventually(t, "no call waits", func(context.Context) error {
			if count(t, pool, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") != n {
				return context.DeadlineExceeded
			}
			return nil
		})
	}
	first := begin("z")
	ended := make(chan error, 1)
	go func() {
		ended <- l.Reset(t.Context(), []ratelimit.Counter{{Policy: "z", Key: key}, {Policy: "a", Key: key}})
	}()
	waiting(1)
	if err := l.Take(t.Context(), decision(a)); err != nil {
		t.Fatal(err)
	}
	second := begin("a")
	if err := first.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	lock(t, second, "z") // as a decision does
	if err := second.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Reset: %v", err)
	}
	z.Cost = 0
	d := decision(z)
	if err := l.Take(t.Context(), d); err != nil || d.Charges[0].Remaining != 5 {
		t.Errorf("%d left, %v, want 5", d.Charges[0].Remaining, err)
	}
}

func lock(t testing.TB, tx pgx.Tx, policy string) {
	t.Helper()
	if _, err := tx.Exec(t.Context(), "SELECT FROM usher.limits WHERE policy = $1 FOR UPDATE", policy); err != nil {
		t.Fatal(err)
	}
}
