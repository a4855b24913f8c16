package usherredis_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/stores/usherredis"
)

// wrong has values that no script has written, by their number of bytes.
var wrong = map[string]string{
	"an empty text":        "",
	"a text":               "x",
	"a number":             "7",
	"an empty list":        "\x90",
	"NaN":                  "\x92\x01\x94\xa6b 5 60\x00\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00\x00",
	"a list of its length": "\x95\x01\x02\x03\x04\x05",
	"a negative number":    "\x95\x01\xff\xff\xff\xa0",
	"a fraction":           "\x95\x01\xcb\x3f\xe0\x00\x00\x00\x00\x00\x00\x02\x03\xa0",
	"infinity":             "\x95\x01\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00\x02\x03\xa0",
	"a later version":      "\x92\x02\x94\xa6b 5 60\x00\x00\x00",
	"a map":                "\x81\x01\x02",
	"too many limits":      "\x96\x01" + strings.Repeat("\x94\xa8b 5 60 5\x00\x00\x00", 5),
	"holds below zero":     "\x92\x02\x95\x01\xff\x00\x00\xa0",
}

// damages returns what may be found at the key of a value. An empty text stands for a value
// of another type of Redis.
func damages(value string) map[string][]string {
	all := map[string][]string{"another type": {"LPUSH", "x"}}
	for name, text := range wrong {
		all[name] = []string{"SET", text}
	}
	for n := range value {
		all["cut to "+string(rune('0'+n/100))+string(rune('0'+n/10%10))+string(rune('0'+n%10))] = []string{"SET", value[:n]}
	}
	all["something appended"] = []string{"SET", value + "\x00"}
	return all
}

// stored returns a charge of one unit for each kind of value that a key may have.
func stored() map[string]ratelimit.Charge {
	all := make(map[string]ratelimit.Charge)
	for name, limit := range limits {
		all[name] = charge("damaged", limit, 1)
		if limit.Algorithm() != ratelimit.AlgorithmConcurrency {
			all["units that are kept under a "+name] = holding("damaged", limit, 1)
		}
	}
	overdrawn := charge("damaged", limits["token bucket"], 1)
	overdrawn.Overdraw = true
	all["overdrawn token bucket"] = overdrawn
	return all
}

// store charges c, and returns what was charged.
func store(t testing.TB, l ratelimit.Store, c ratelimit.Charge) ratelimit.Charge {
	t.Helper()
	taken := take(t, l, c).Charges[0]
	if c.Overdraw {
		more := taken
		more.Cost = 7
		if moved := adjust(t, l, more); moved != 7 {
			t.Fatalf("an overdraft moves %d units, want 7", moved)
		}
	}
	return taken
}

func TestUnreadableDataChargesNothing(t *testing.T) {
	s := servers.Redis(t)
	client := connect(t, s.Addr)
	for name, c := range stored() {
		t.Run(name, func(t *testing.T) {
			prefix := newPrefix()
			l := open(t, s.Addr, prefix).Limits()
			beside := charge("beside", limits["rolling window"], 1)
			taken := store(t, l, c)
			key := find(t, client, prefix, ":damaged:")
			value := get(t, client, key)
			check := func(what string, err error) {
				t.Helper()
				if !errors.Is(err, usher.ErrCorrupt) || !strings.Contains(err.Error(), `"damaged"`) || strings.Contains(err.Error(), "somebody") {
					t.Errorf("%s: %v, want ErrCorrupt that names the policy", what, err)
				}
			}
			for damage, words := range damages(value) {
				t.Run(damage, func(t *testing.T) {
					del(t, client, key)
					do(t, client, words[0], key, words[1])
					check("Take", l.Take(t.Context(), decision(beside, c)))
					back := taken
					back.Cost = -1
					check("Adjust", l.Adjust(t.Context(), decision(beside, back)))
					back.EndHold = true
					check("Adjust to end a hold", l.Adjust(t.Context(), decision(beside, back)))
					peek := decision(beside, c)
					peek.Peek = true
					check("Take to peek", l.Take(t.Context(), peek))
					if c.Hold || c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
						place := ratelimit.Place{Policy: c.Policy, Key: c.Key, TakenBy: taken.TakenBy}
						if lost, err := l.Renew(t.Context(), []ratelimit.Place{place}, time.Minute); err != nil || len(lost) != 1 {
							t.Errorf("Renew: lost %v, error %v, want it lost", lost, err)
						}
					}
				})
			}
			wantLeft(t, l, beside, 5)
			del(t, client, key)
			wantLeft(t, l, c, 5)
		})
	}
}

// Whatever bytes change, a script ends with a result or with ErrCorrupt, never with an
// error of its own.
func TestScriptsSurviveEveryByte(t *testing.T) {
	s := servers.Redis(t)
	client := connect(t, s.Addr)
	for name, c := range stored() {
		t.Run(name, func(t *testing.T) {
			prefix := newPrefix()
			l := open(t, s.Addr, prefix).Limits()
			other := charge("damaged", ratelimit.RollingWindow(9, time.Minute), 1)
			if c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
				other.Limit = ratelimit.Concurrency(9)
			}
			take(t, l, other)
			taken := store(t, l, c)
			taken.Cost = -1
			ended := taken
			ended.Cost, ended.EndHold = 2, true
			place := ratelimit.Place{Policy: c.Policy, Key: c.Key, TakenBy: taken.TakenBy}
			key := find(t, client, prefix, ":damaged:")
			value := get(t, client, key)
			for i := range value {
				for _, b := range []byte{0, 1, 0x7f, 0x80, 0x90, 0xa0, 0xc0, 0xcb, 0xff, value[i] + 1, value[i] - 1} {
					damaged := []byte(value)
					damaged[i] = b
					do(t, client, "SET", key, string(damaged))
					for name, err := range map[string]error{
						"Take": l.Take(t.Context(), decision(c)), "Adjust": l.Adjust(t.Context(), decision(taken)),
						"Adjust to end a hold": l.Adjust(t.Context(), decision(ended)),
						"Renew":                func() error { _, err := l.Renew(t.Context(), []ratelimit.Place{place}, time.Minute); return err }(),
						"Reset":                l.Reset(t.Context(), []ratelimit.Counter{{Policy: c.Policy, Key: c.Key}}),
					} {
						if err != nil && !errors.Is(err, usher.ErrCorrupt) {
							t.Fatalf("%s with byte %d of %q set to %#x: %v", name, i, value, b, err)
						}
					}
				}
			}
		})
	}
}

// A value that cannot be read is repaired by a Reset, which forgets it.
func TestAResetRepairsUnreadableData(t *testing.T) {
	s := servers.Redis(t)
	client := connect(t, s.Addr)
	for name, c := range stored() {
		if c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
			continue // its places are those of running requests
		}
		t.Run(name, func(t *testing.T) {
			prefix := newPrefix()
			l := open(t, s.Addr, prefix).Limits()
			store(t, l, c)
			key := find(t, client, prefix, ":damaged:")
			for damage, words := range damages(get(t, client, key)) {
				del(t, client, key)
				do(t, client, words[0], key, words[1])
				if err := l.Reset(t.Context(), []ratelimit.Counter{{Policy: c.Policy, Key: c.Key}}); err != nil {
					t.Errorf("%s: Reset: %v", damage, err)
				}
				wantLeft(t, l, c, 5)
			}
		})
	}
}

func TestUnreadableResultsOfAnEarlierCallAreAnError(t *testing.T) {
	s := servers.Redis(t)
	client := connect(t, s.Addr)
	prefix := newPrefix()
	l := open(t, s.Addr, prefix).Limits()
	d := take(t, l, charge("p", limits["rolling window"], 1))
	key := find(t, client, prefix, ":call:")
	for damage, words := range damages(get(t, client, key)) {
		t.Run(damage, func(t *testing.T) {
			del(t, client, key)
			do(t, client, words[0], key, words[1])
			if err := l.Take(t.Context(), d); !errors.Is(err, usher.ErrCorrupt) && !strings.Contains(err.Error(), "the same ID") {
				t.Errorf("Take: %v, want ErrCorrupt, or two calls with the same ID", err)
			}
		})
	}
	wantLeft(t, l, d.Charges[0], 4)
}

func TestAKeyWhoseRecordCannotBeReadIsNotFree(t *testing.T) {
	s := servers.Redis(t)
	client := connect(t, s.Addr)
	i := open(t, s.Addr, newPrefix()).Idempotency()
	for state, payload := range map[string]string{"claimed": "", "done": "a response"} {
		t.Run(state, func(t *testing.T) {
			c := newClaim()
			before := keys(t, s.Addr)
			win(t, i, c)
			if payload != "" {
				if _, err := i.Finish(t.Context(), done(c, payload)); err != nil {
					t.Fatal(err)
				}
			}
			after := slices.DeleteFunc(keys(t, s.Addr), func(k string) bool { return slices.Contains(before, k) })
			key := after[0]
			all := damages(get(t, client, key))
			if payload == "" {
				// The status of a claim says whether it was taken over.
				value := []byte(get(t, client, key))
				value[69] = 2
				all["a claim with a status"] = []string{"SET", string(value)}
			}
			for damage, words := range all {
				t.Run(damage, func(t *testing.T) {
					del(t, client, key)
					do(t, client, words[0], key, words[1])
					other := c
					other.Token[0]++
					for _, c := range []idempotency.Claim{c, other} {
						if got, err := i.Claim(t.Context(), c); !errors.Is(err, usher.ErrCorrupt) {
							t.Errorf("Claim: %+v, %v, want ErrCorrupt", got, err)
						}
						if _, err := i.Finish(t.Context(), done(c, "other")); !errors.Is(err, usher.ErrCorrupt) {
							t.Errorf("Finish: %v, want ErrCorrupt", err)
						}
						id := idempotency.ClaimID{Key: c.Key, Token: c.Token}
						if lost, err := i.Renew(t.Context(), []idempotency.ClaimID{id}, time.Minute); err != nil || len(lost) != 1 {
							t.Errorf("Renew: %v, %v, want it lost", lost, err)
						}
					}
					if got, err := i.Find(t.Context(), c.Key); !errors.Is(err, usher.ErrCorrupt) {
						t.Errorf("Find: %+v, %v, want ErrCorrupt", got, err)
					}
					if err := i.Delete(t.Context(), c.Key, 1); !errors.Is(err, usher.ErrCorrupt) {
						t.Errorf("Delete: %v, want ErrCorrupt", err)
					}
					if err := i.Delete(t.Context(), c.Key, 0); err != nil {
						t.Errorf("Delete of what cannot be read: %v", err)
					}
					if err := i.Delete(t.Context(), c.Key, 0); !errors.Is(err, idempotency.ErrNotFound) {
						t.Errorf("Delete of nothing: %v, want ErrNotFound", err)
					}
				})
			}
		})
	}
}

// If the clock of the server is set back, nobody is locked out for longer than a limit
// allows, and nobody gets a fresh allowance.
func TestAClockThatIsSetBack(t *testing.T) {
	for name, c := range map[string]struct {
		limit ratelimit.Limit
		after time.Duration
	}{
		"token bucket":   {ratelimit.TokenBucket(60, time.Minute, 5), 5 * time.Second},
		"rolling window": {ratelimit.RollingWindow(5, time.Minute), time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t, servers.Redis(t).Addr, newPrefix()).Limits()
			now := time.Unix(1_800_000_000, 0)
			usherredis.SetClock(l, func() time.Time { return now })
			all := charge("p", c.limit, 5)
			take(t, l, all)
			now = now.Add(-time.Hour)
			wantLeft(t, l, all, 0)
			one := charge("p", c.limit, 1)
			if d := take(t, l, one); d.Admitted || d.Charges[0].Wait <= 0 || d.Charges[0].Wait > c.after {
				t.Errorf("admitted %v, wait %v, want at most %v", d.Admitted, d.Charges[0].Wait, c.after)
			}
			now = now.Add(c.after)
			wantLeft(t, l, all, 5)
		})
	}
}

// A debt is not mistaken for a clock that was set back, and does not grow when it is.
func TestADebtAndAClockThatIsSetBack(t *testing.T) {
	l := open(t, servers.Redis(t).Addr, newPrefix()).Limits()
	now := time.Unix(1_800_000_000, 0)
	usherredis.SetClock(l, func() time.Time { return now })
	c := charge("p", ratelimit.TokenBucket(60, time.Minute, 5), 5)
	want := func(wait time.Duration) {
		t.Helper()
		one := c
		one.Cost = 1
		if d := take(t, l, one); d.Admitted || d.Charges[0].Wait != wait {
			t.Errorf("admitted %v, wait %v, want %v", d.Admitted, d.Charges[0].Wait, wait)
		}
	}
	more := take(t, l, c).Charges[0]
	more.Cost, more.Overdraw = 100, true
	adjust(t, l, more)
	want(101 * time.Second)
	// A charge of nothing is stored if the key had another limit before.
	take(t, l, charge("p", ratelimit.RollingWindow(5, time.Second), 0))
	take(t, l, charge("p", c.Limit, 0))
	now = now.Add(time.Second)
	want(100 * time.Second)
	now = now.Add(-time.Hour)
	want(101 * time.Second) // as when the debt was made
	now = now.Add(-time.Hour)
	want(101 * time.Second)
	now = now.Add(101 * time.Second)
	c.Cost = 1
	take(t, l, c)
	// The debt is earned, so the bucket is one like any other.
	now = now.Add(-time.Hour)
	want(time.Second)
	now = now.Add(5 * time.Second)
	wantLeft(t, l, c, 5)
}

// After a window has taken the place of a later one, what is charged can be refunded.
func TestARefundAfterAClockWasSetBack(t *testing.T) {
	l := open(t, servers.Redis(t).Addr, newPrefix()).Limits()
	now := time.Unix(1_800_000_000, 0)
	usherredis.SetClock(l, func() time.Time { return now })
	c := charge("p", limits["calendar window"], 2)
	present := func() {
		c.Windows = [2]ratelimit.Window{{Start: now, End: now.Add(time.Hour)}, {Start: now.Add(time.Hour), End: now.Add(2 * time.Hour)}}
	}
	present()
	take(t, l, c)
	now = now.Add(-3 * time.Hour)
	present()
	back := take(t, l, c).Charges[0]
	if back.Remaining != 1 || back.Reset != time.Hour {
		t.Errorf("%d left for %v, want 1 for an hour", back.Remaining, back.Reset)
	}
	back.Cost = -2
	if moved := adjust(t, l, back); moved != -2 {
		t.Errorf("a refund of 2 moves %d units", moved)
	}
}

// connect returns a client for the server at addr.
func connect(t testing.TB, addr string) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func do(t testing.TB, c rueidis.Client, words ...string) rueidis.RedisMessage {
	t.Helper()
	m, err := c.Do(t.Context(), c.B().Arbitrary(words...).Build()).ToMessage()
	if err != nil {
		t.Fatalf("%q: %v", words[0], err)
	}
	return m
}

func get(t testing.TB, c rueidis.Client, key string) string {
	t.Helper()
	m := do(t, c, "GET", key)
	value, err := m.ToString()
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func del(t testing.TB, c rueidis.Client, key string) { t.Helper(); do(t, c, "DEL", key) }

// find returns the only key with a prefix that contains this text.
func find(t testing.TB, c rueidis.Client, prefix, text string) string {
	t.Helper()
	m := do(t, c, "KEYS", "{"+prefix+"}*")
	list, err := m.AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	list = slices.DeleteFunc(list, func(k string) bool { return !strings.Contains(k, text) })
	if len(list) != 1 {
		t.Fatalf("%d keys contain %q, want 1", len(list), text)
	}
	return list[0]
}
