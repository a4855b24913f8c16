package usherredis_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/stores/usherredis"
)

// useAll uses every kind of key.
func useAll(t testing.TB, r *usherredis.Redis) {
	t.Helper()
	var charges []ratelimit.Charge
	for name, l := range limits {
		charges = append(charges, charge(strings.ReplaceAll(name, " ", "-"), l, 1))
	}
	charges = append(charges, holding("holds", limits["rolling window"], 1))
	rand.Shuffle(len(charges), func(i, j int) { charges[i], charges[j] = charges[j], charges[i] })
	taken := take(t, r.Limits(), charges...).Charges
	for i := range taken {
		taken[i].Cost = 2
	}
	if err := r.Limits().Adjust(t.Context(), decision(taken...)); err != nil {
		t.Fatal(err)
	}
	for _, c := range taken {
		if c.Moved != 2 {
			t.Errorf("%v: %d units moved, want 2", c.Limit, c.Moved)
		}
		if c.Hold || c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
			place := ratelimit.Place{Policy: c.Policy, Key: c.Key, TakenBy: c.TakenBy}
			if lost, err := r.Limits().Renew(t.Context(), []ratelimit.Place{place, place}, time.Minute); err != nil || len(lost) > 0 {
				t.Errorf("Renew: %v, %v", lost, err)
			}
		}
	}
	first, second := newClaim(), newClaim()
	win(t, r.Idempotency(), first)
	win(t, r.Idempotency(), second)
	claims := []idempotency.ClaimID{{Key: first.Key, Token: first.Token}, {Key: second.Key, Token: second.Token}}
	if lost, err := r.Idempotency().Renew(t.Context(), claims, time.Minute); err != nil || len(lost) > 0 {
		t.Errorf("Renew: %v, %v", lost, err)
	}
	if err := r.Limits().Reset(t.Context(), []ratelimit.Counter{{Policy: "unknown"}, {Policy: "none"}}); err != nil {
		t.Errorf("Reset: %v", err)
	}
	if _, err := r.Idempotency().Finish(t.Context(), done(first, "response")); err != nil {
		t.Error(err)
	}
	gone := newClaim()
	win(t, r.Idempotency(), gone)
	end := done(gone, "response")
	if _, err := r.Idempotency().Finish(t.Context(), end); err != nil {
		t.Error(err)
	}
	if found, err := r.Idempotency().Find(t.Context(), gone.Key); err != nil {
		t.Error(err)
	} else if err := r.Idempotency().Delete(t.Context(), gone.Key, found.Generation); err != nil {
		t.Error(err)
	}
}

func TestPrefixesAreApart(t *testing.T) {
	s := servers.Redis(t)
	one, other := open(t, s.Addr, "orders"), open(t, s.Addr, "orders2")
	useAll(t, one)
	for name, l := range limits {
		wantLeft(t, other.Limits(), charge(strings.ReplaceAll(name, " ", "-"), l, 1), 5)
	}
	c := newClaim()
	win(t, one.Idempotency(), c)
	c.Token[1]++
	win(t, other.Idempotency(), c)
}

func TestAllKeysExpire(t *testing.T) {
	s := servers.Redis(t)
	useAll(t, open(t, s.Addr, "orders"))
	all := keys(t, s.Addr)
	if len(all) != 5+2+2 {
		t.Errorf("%d keys, want 5 of limits, 2 of calls and 2 of records", len(all))
	}
	_, year := limits["calendar window"].Window(time.Now())
	for part, want := range map[string]time.Duration{
		":limit:token-bucket:":    36 * time.Minute, // in which 3 of 5 units in an hour are earned
		":limit:rolling-window:":  time.Hour,
		":limit:calendar-window:": time.Until(year),
		":limit:holds:":           time.Minute,
		":places:concurrency:":    time.Minute,
		":call:":                  5 * time.Second,
		":record:":                time.Hour,
	} {
		for _, key := range all {
			if !strings.HasPrefix(key, "{orders}"+part) {
				continue
			}
			const slack = 20 * time.Second
			m := must(t, s.Addr, "PTTL", key)
			ms, err := m.AsInt64()
			if ttl := time.Duration(ms) * time.Millisecond; err != nil || ttl <= 0 || ttl < want-slack || ttl > want+slack {
				t.Errorf("the key %q expires in %v, want %v (%v)", key, ttl, want, err)
			}
		}
	}
}

// The key of units that decisions hold lasts as long as their lease, and as what the key has used.
func TestKeysOfHoldsExpire(t *testing.T) {
	s := servers.Redis(t)
	client := connect(t, s.Addr)
	prefix := newPrefix()
	l := open(t, s.Addr, prefix).Limits()
	want := func(lifetime time.Duration) {
		t.Helper()
		const slack = 20 * time.Second
		m := do(t, client, "PTTL", find(t, client, prefix, ":limit:p:"))
		ms, err := m.AsInt64()
		if ttl := time.Duration(ms) * time.Millisecond; err != nil || ttl < lifetime-slack || ttl > lifetime+slack {
			t.Errorf("the key expires in %v, want %v (%v)", ttl, lifetime, err)
		}
	}
	c := holding("p", limits["rolling window"], 1)
	counter := []ratelimit.Counter{{Policy: c.Policy, Key: c.Key}}
	renew := func(c ratelimit.Charge, lease time.Duration) {
		t.Helper()
		place := ratelimit.Place{Policy: c.Policy, Key: c.Key, TakenBy: c.TakenBy}
		if lost, err := l.Renew(t.Context(), []ratelimit.Place{place}, lease); err != nil || len(lost) > 0 {
			t.Errorf("Renew: %v, %v", lost, err)
		}
	}

	first := take(t, l, c).Charges[0]
	want(time.Minute)
	renew(first, 5*time.Minute)
	want(5 * time.Minute)
	second := take(t, l, c).Charges[0]
	want(5 * time.Minute)
	if err := l.Reset(t.Context(), counter); err != nil {
		t.Error(err)
	}
	want(5 * time.Minute)
	wantLeft(t, l, c, 3)
	take(t, l, charge("p", c.Limit, 1))
	want(time.Hour)
	renew(first, 10*time.Minute)
	want(time.Hour)
	renew(first, 2*time.Hour)
	want(2 * time.Hour)
	if err := l.Reset(t.Context(), counter); err != nil {
		t.Error(err)
	}
	want(2 * time.Hour)
	wantLeft(t, l, c, 3)

	first.EndHold, second.EndHold, first.Cost, second.Cost = true, true, 0, 0
	adjust(t, l, first)
	adjust(t, l, second)
	used := take(t, l, c).Charges[0]
	used.EndHold = true
	adjust(t, l, used)
	if value := get(t, client, find(t, client, prefix, ":limit:p:")); !strings.HasPrefix(value, "\x92\x01\x94") {
		t.Errorf("after the end of all holds %q is stored, want one limit and no holds", value)
	}
	if err := l.Reset(t.Context(), counter); err != nil {
		t.Error(err)
	}
	for _, key := range keys(t, s.Addr) {
		if strings.Contains(key, ":limit:") {
			t.Errorf("the key %q is left after the end of all holds", key)
		}
	}

	c.Lease = 20 * time.Millisecond
	take(t, l, c)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if !slices.ContainsFunc(keys(t, s.Addr), func(key string) bool { return strings.Contains(key, ":limit:") }) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the key of a lease that has ended is left")
		}
	}
}

// A server in cluster mode refuses keys that a script has not declared, and keys of several
// slots.
func TestAClusterRunsEveryScriptOnOneSlot(t *testing.T) {
	s := servers.Redis(t, "cluster-enabled", "yes")
	must(t, s.Addr, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	var client rueidis.Client
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var err error
		client, err = rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{s.Addr}, DisableCache: true, AlwaysPipelining: true,
		})
		if err == nil {
			if err = client.Do(t.Context(), client.B().Set().Key("k").Value("v").Build()).Error(); err == nil {
				break
			}
			client.Close()
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	defer client.Close()
	r, err := usherredis.Open(usherredis.Config{Client: client, Prefix: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	useAll(t, r)
	if err := r.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	slot := func(key string) int64 {
		m := must(t, s.Addr, "CLUSTER", "KEYSLOT", key)
		n, err := m.AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, key := range keys(t, s.Addr) {
		if key != "k" && slot(key) != slot("orders") {
			t.Errorf("the key %q is not in the slot of its prefix", key)
		}
	}
	_ = r.Close()
	if err := client.Do(t.Context(), client.B().Ping().Build()).Error(); err != nil {
		t.Errorf("Close has closed a client that it has not made: %v", err)
	}
}

// A key is removed once its value makes no difference any more.
func TestKeysAreRemovedOnceTheyMakeNoDifference(t *testing.T) {
	s := servers.Redis(t)
	l := open(t, s.Addr, newPrefix()).Limits()
	var charges []ratelimit.Charge
	for _, c := range []ratelimit.Charge{
		charge("bucket", ratelimit.TokenBucket(5, time.Hour, 5), 3),
		charge("rolling", ratelimit.RollingWindow(5, time.Hour), 3),
		charge("places", ratelimit.Concurrency(5), 3),
	} {
		c = take(t, l, c).Charges[0]
		c.Cost = -3
		charges = append(charges, c)
	}
	if err := l.Adjust(t.Context(), decision(charges...)); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys(t, s.Addr) {
		if !strings.Contains(key, ":call:") {
			t.Errorf("the key %q is left after a refund", key)
		}
	}
	// A request that is refused by one policy costs the others nothing.
	if d := take(t, l, charge("bucket", ratelimit.TokenBucket(5, time.Hour, 5), 1), charge("none", ratelimit.Nothing(), 1)); d.Admitted {
		t.Error("admitted under a limit of nothing")
	}
	for _, key := range keys(t, s.Addr) {
		if !strings.Contains(key, ":call:") {
			t.Errorf("the key %q is left after a refusal", key)
		}
	}
	short := charge("short", ratelimit.RollingWindow(5, 20*time.Millisecond), 1)
	take(t, l, short)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		n := 0
		for _, key := range keys(t, s.Addr) {
			if strings.Contains(key, ":short:") {
				n++
			}
		}
		if n == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the key of a window that has ended is left")
		}
	}
}
