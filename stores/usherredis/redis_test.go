package usherredis_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/leak"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/stores/usherredis"
)

func TestMain(m *testing.M) { leak.Main(m) }

var serial atomic.Uint64

// newPrefix returns a prefix that no other test uses.
func newPrefix() string { return fmt.Sprint("test", serial.Add(1)) }

// open returns a Redis for the server at addr, with timeouts that a loaded machine keeps.
func open(t testing.TB, addr, prefix string) *usherredis.Redis {
	t.Helper()
	return openURL(t, "redis://"+addr+"?dial_timeout=5s&write_timeout=10s", prefix)
}

func openURL(t testing.TB, url, prefix string) *usherredis.Redis {
	t.Helper()
	r, err := usherredis.Open(usherredis.Config{URL: url, Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// command sends a command to the server at addr and returns the reply.
func command(t testing.TB, addr string, words ...string) rueidis.RedisResult {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.Do(context.Background(), c.B().Arbitrary(words...).Build())
}

// must fails the test unless a command succeeds.
func must(t testing.TB, addr string, words ...string) rueidis.RedisMessage {
	t.Helper()
	m, err := command(t, addr, words...).ToMessage()
	if err != nil {
		t.Fatalf("%q: %v", words[0], err)
	}
	return m
}

// keys returns all keys of the server at addr.
func keys(t testing.TB, addr string) []string {
	t.Helper()
	m := must(t, addr, "KEYS", "*")
	list, err := m.AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// limits has one limit of each algorithm, with a quota of five.
var limits = map[string]ratelimit.Limit{
	"token bucket":    ratelimit.TokenBucket(5, time.Hour, 5),
	"rolling window":  ratelimit.RollingWindow(5, time.Hour),
	"calendar window": ratelimit.CalendarWindow(5, ratelimit.Year),
	"concurrency":     ratelimit.Concurrency(5),
}

func charge(policy string, l ratelimit.Limit, cost int64) ratelimit.Charge {
	c := ratelimit.Charge{Policy: policy, Key: ratelimit.TextKey("somebody"), Limit: l, Cost: cost, Lease: time.Minute}
	c.Windows[0].Start, c.Windows[0].End = l.Window(time.Now())
	c.Windows[1].Start, c.Windows[1].End = l.Window(c.Windows[0].End)
	return c
}

// decision returns a decision with an ID that no other call has.
func decision(charges ...ratelimit.Charge) *ratelimit.Decision {
	return &ratelimit.Decision{ID: ratelimit.ID{Node: 1, Seq: serial.Add(1)}, Charges: charges}
}

func take(t testing.TB, s ratelimit.Store, charges ...ratelimit.Charge) *ratelimit.Decision {
	t.Helper()
	d := decision(charges...)
	if err := s.Take(context.Background(), d); err != nil {
		t.Fatalf("Take: %v", err)
	}
	return d
}

// holding returns a charge that holds its cost for a minute.
func holding(policy string, l ratelimit.Limit, cost int64) ratelimit.Charge {
	c := charge(policy, l, cost)
	c.Hold = true
	return c
}

// adjust returns how many units an adjustment moves.
func adjust(t testing.TB, s ratelimit.Store, c ratelimit.Charge) int64 {
	t.Helper()
	d := decision(c)
	if err := s.Adjust(context.Background(), d); err != nil {
		t.Fatalf("Adjust: %v", err)
	}
	return d.Charges[0].Moved
}

// wantLeft fails the test unless n units are left under c.
func wantLeft(t testing.TB, s ratelimit.Store, c ratelimit.Charge, n int64) {
	t.Helper()
	c.Cost, c.Hold = 0, false
	if left := take(t, s, c).Charges[0].Remaining; left != n {
		t.Errorf("%v: %d left, want %d", c.Limit, left, n)
	}
}

func newClaim() idempotency.Claim {
	n := serial.Add(1)
	c := idempotency.Claim{Token: idempotency.Token{1, byte(n), byte(n >> 8)}, Lease: time.Minute, TTL: time.Hour}
	c.Key.Name = [32]byte{2, byte(n), byte(n >> 8)}
	return c
}

func win(t testing.TB, s idempotency.Store, c idempotency.Claim) {
	t.Helper()
	if r, err := s.Claim(context.Background(), c); err != nil || !r.Won {
		t.Fatalf("Claim: %+v, %v", r, err)
	}
}

func done(c idempotency.Claim, payload string) idempotency.Completion {
	return idempotency.Completion{Key: c.Key, Token: c.Token, Result: idempotency.Result{
		State: idempotency.StateDone, Status: 200, Payload: []byte(payload), TTL: time.Hour,
	}}
}

// calls calls each method of both stores.
func calls(ctx context.Context, r *usherredis.Redis) map[string]error {
	errs := make(map[string]error)
	l, i := r.Limits(), r.Idempotency()
	c := newClaim()
	errs["Take"] = l.Take(ctx, decision(charge("p", limits["token bucket"], 1)))
	errs["Adjust"] = l.Adjust(ctx, decision(charge("p", limits["token bucket"], -1)))
	errs["Reset"] = l.Reset(ctx, []ratelimit.Counter{{Policy: "p"}})
	_, errs["Renew of places"] = l.Renew(ctx, []ratelimit.Place{{Policy: "p"}}, time.Minute)
	_, errs["Claim"] = i.Claim(ctx, c)
	_, errs["Renew of claims"] = i.Renew(ctx, []idempotency.ClaimID{{Key: c.Key, Token: c.Token}}, time.Minute)
	_, errs["Finish"] = i.Finish(ctx, done(c, "response"))
	if errors.Is(errs["Finish"], idempotency.ErrLost) {
		errs["Finish"] = nil
	}
	_, errs["Find"] = i.Find(ctx, c.Key)
	errs["Delete"] = i.Delete(ctx, newClaim().Key, 1)
	for _, name := range []string{"Find", "Delete"} {
		if errors.Is(errs[name], idempotency.ErrNotFound) {
			errs[name] = nil
		}
	}
	return errs
}

// wantAll fails the test unless every call ends with this error, or with none if it is nil.
func wantAll(t testing.TB, errs map[string]error, want error) {
	t.Helper()
	for name, err := range errs {
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

// eventually fails the test unless all calls succeed within ten seconds.
func eventually(t testing.TB, r *usherredis.Redis) {
	t.Helper()
	var errs map[string]error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		errs = calls(ctx, r)
		cancel()
		ok := true
		for _, err := range errs {
			ok = ok && err == nil
		}
		if ok {
			return
		}
	}
	t.Errorf("no success: %v", errs)
}
