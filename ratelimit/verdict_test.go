package ratelimit_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/oteltest"
	"github.com/usher-go/usher/ratelimit"
)

func TestOnDecisionGetsTheVerdictOfEachPolicy(t *testing.T) {
	var got []ratelimit.Verdict
	shadow := forAll("shadow", ratelimit.RollingWindow(1, time.Hour))
	shadow.Shadow = true
	skipped := forAll("skipped", ratelimit.Nothing())
	skipped.Applies = func(*http.Request) bool { return false }
	h := newLimiter(t, ratelimit.Config{
		Policies: []ratelimit.Policy{forAll("two", ratelimit.TokenBucket(2, 10*time.Hour, 2)), shadow, skipped, forAll("wide", ratelimit.RollingWindow(9, time.Hour))},
		OnDecision: func(ctx context.Context, v ratelimit.Verdict) {
			if ctx.Value(http.ServerContextKey) != "request" {
				t.Error("the context is not that of the request")
			}
			got = append(got, v)
		},
	}).Wrap(ok)
	request := func(r *http.Request) {
		*r = *r.WithContext(context.WithValue(r.Context(), http.ServerContextKey, "request"))
	}
	codes(3, h, request)
	var lines []string
	for _, v := range got {
		wait := ""
		if v.Wait != 0 {
			wait = " wait"
		}
		lines = append(lines, fmt.Sprintf("%s (%v) %d of %d violated=%t shadow=%t admitted=%t%s",
			v.Policy, v.Limit, v.Cost, v.Remaining, v.Violated, v.Shadow, v.Admitted, wait))
	}
	want := []string{
		"two (2 per 10h0m0s, burst 2) 1 of 1 violated=false shadow=false admitted=true",
		"shadow (1 in any 1h0m0s) 1 of 0 violated=false shadow=true admitted=true",
		"wide (9 in any 1h0m0s) 1 of 8 violated=false shadow=false admitted=true",
		"two (2 per 10h0m0s, burst 2) 1 of 0 violated=false shadow=false admitted=true",
		"shadow (1 in any 1h0m0s) 1 of 0 violated=true shadow=true admitted=true wait",
		"wide (9 in any 1h0m0s) 1 of 7 violated=false shadow=false admitted=true",
		"two (2 per 10h0m0s, burst 2) 1 of 0 violated=true shadow=false admitted=false wait",
		"shadow (1 in any 1h0m0s) 1 of 0 violated=true shadow=true admitted=false wait",
		"wide (9 in any 1h0m0s) 1 of 7 violated=false shadow=false admitted=false",
	}
	if diff := compare.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

// The same key has the same text in every process, and no format shows the key.
func TestAVerdictHidesItsKey(t *testing.T) {
	const raw = "account-of-ann"
	key := ratelimit.TextKey(raw)
	digest := key.Digest()
	mac := hmac.New(sha256.New, []byte("secret"))
	mac.Write(digest[:])
	plain, keyed := hex.EncodeToString(digest[:]), hex.EncodeToString(mac.Sum(nil)[:16])
	for range 2 { // processes
		var text bytes.Buffer
		log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
		p := forAll("p", ratelimit.RollingWindow(1, time.Hour))
		p.Key = func(*http.Request) (ratelimit.Key, bool) { return key, true }
		var v ratelimit.Verdict
		keep := func(_ context.Context, of ratelimit.Verdict) { v = of }
		do(newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, OnDecision: keep}).Wrap(ok))
		if v.Key(nil) != plain || v.Key([]byte("secret")) != keyed {
			t.Errorf("the key is %s and %s, want %s and %s", v.Key(nil), v.Key([]byte("secret")), plain, keyed)
		}
		log.Info("raw", "verdict", v)
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			fmt.Fprintf(&text, format, v)
		}
		do(newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, OnDecision: ratelimit.LogDecisions(log, []byte("secret"))}).Wrap(ok))
		do(newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p}, OnDecision: ratelimit.LogDecisions(log, nil)}).Wrap(ok))
		out := text.String()
		if strings.Contains(out, raw) || strings.Contains(out, hex.EncodeToString([]byte(raw))) {
			t.Errorf("the key is shown: %s", out)
		}
		want := ` level=DEBUG msg="ratelimit: decision" policy=p key=` + keyed +
			` limit="1 in any 1h0m0s" cost=1 remaining=0 admitted=true violated=false shadow=false wait=0s` + "\n"
		if !strings.Contains(out, want) || !strings.Contains(out, "key="+plain) {
			t.Errorf("the log is %s", out)
		}
	}
}

func TestLogDecisionsIsSilentAboveDebug(t *testing.T) {
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	do(newLimiter(t, ratelimit.Config{
		Policies:   []ratelimit.Policy{forAll("p", ratelimit.Nothing())},
		OnDecision: ratelimit.LogDecisions(log, nil),
	}).Wrap(ok))
	do(newLimiter(t, ratelimit.Config{
		Policies:   []ratelimit.Policy{forAll("p", ratelimit.Nothing())},
		OnDecision: ratelimit.LogDecisions(nil, nil), // the default logger
	}).Wrap(ok))
	if text.Len() > 0 {
		t.Errorf("logged: %s", text.String())
	}
}

func TestAPanicOfOnDecisionChangesNothing(t *testing.T) {
	var reported errorsOf
	h := newLimiter(t, ratelimit.Config{
		Policies: []ratelimit.Policy{
			forAll("places", ratelimit.Concurrency(1)), forAll("two", ratelimit.RollingWindow(2, time.Hour)),
		},
		OnDecision: func(context.Context, ratelimit.Verdict) { panic("hook") },
		OnError:    reported.add,
	}).Wrap(ok)
	wantCodes(t, codes(3, h), 200, 200, 429)
	errs := reported.all()
	if len(errs) != 6 || !strings.Contains(errs[0].Error(), "OnDecision") {
		t.Errorf("OnError was called with %v", errs)
	}
}

// A request is near a limit if less than a fifth is left after it.
func TestNearLimitIsCountedOnceForEachDecisionAndPolicy(t *testing.T) {
	for _, tt := range []struct {
		name     string
		limit    ratelimit.Limit
		requests int
		want     int64
	}{
		{"8 of 10 leave a fifth", ratelimit.RollingWindow(10, time.Hour), 8, 0},
		{"9 of 10", ratelimit.RollingWindow(10, time.Hour), 9, 1},
		{"refused requests do not count", ratelimit.RollingWindow(10, time.Hour), 15, 2},
		{"the burst of a bucket, not its quota", ratelimit.TokenBucket(1, 100*time.Hour, 10), 10, 2},
		{"a bucket whose burst is small", ratelimit.TokenBucket(1000, 1000*time.Hour, 10), 9, 1},
		{"a calendar window", ratelimit.CalendarWindow(5, ratelimit.Year), 5, 1},
		{"places", ratelimit.Concurrency(1), 2, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			meter := new(oteltest.Meter)
			free := forAll("free", ratelimit.RollingWindow(1, time.Hour))
			free.Cost = func(*http.Request) int { return 0 }
			h := newLimiter(t, ratelimit.Config{
				Policies: []ratelimit.Policy{forAll("p", tt.limit), free}, MeterProvider: meter,
			}).Wrap(ok)
			codes(tt.requests, h)
			got := map[string]int64{}
			for _, c := range meter.Counts() {
				if c.Name == "usher.rate_limiting.decisions" {
					continue
				}
				if result, _ := c.Attributes.Value("usher.rate_limiting.result"); result.AsString() == "near_limit" {
					policy, _ := c.Attributes.Value("usher.rate_limiting.policy")
					got[policy.AsString()] = c.Value
				}
			}
			if got["p"] != tt.want || got["free"] != 0 {
				t.Errorf("%v, want %d", got, tt.want)
			}
		})
	}
}

func TestOnlyAnAdmittedChargeIsNearALimit(t *testing.T) {
	meter := new(oteltest.Meter)
	p := forAll("p", ratelimit.RollingWindow(10, time.Hour))
	p.Cost = func(r *http.Request) int { n, _ := strconv.Atoi(r.Header.Get("Cost")); return n }
	closed := forAll("closed", ratelimit.Nothing())
	closed.Applies = func(r *http.Request) bool { return r.Header.Get("Closed") != "" }
	h := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{p, closed}, MeterProvider: meter}).Wrap(ok)
	wantCodes(t, codes(1, h, set("Cost", "9")), 200)                       // near the limit
	wantCodes(t, codes(1, h, set("Cost", "0")), 200)                       // charges nothing
	wantCodes(t, codes(1, h, set("Cost", "1"), set("Closed", "yes")), 429) // refused by another policy
	for _, c := range meter.Counts() {
		if c.Name == "usher.rate_limiting.decisions" {
			continue
		}
		if result, _ := c.Attributes.Value("usher.rate_limiting.result"); result.AsString() == "near_limit" && c.Value != 1 {
			t.Errorf("counted %d times, want once", c.Value)
		}
	}
}

// The secret is that of the call, whatever its caller does with it later; an empty one is none.
func TestTheSecretOfLogDecisionsStays(t *testing.T) {
	var text bytes.Buffer
	secret := []byte("secret")
	log := ratelimit.LogDecisions(slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug})), secret)
	clear(secret)
	var v ratelimit.Verdict
	do(newLimiter(t, ratelimit.Config{
		Policies: []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))},
		OnDecision: func(ctx context.Context, of ratelimit.Verdict) {
			log(ctx, of)
			v = of
		},
	}).Wrap(ok))
	if !strings.Contains(text.String(), "key="+v.Key([]byte("secret"))) {
		t.Errorf("logged %s", text.String())
	}
	if v.Key(nil) != v.Key([]byte{}) {
		t.Error("an empty secret is a secret")
	}
}

// While debug records are disabled, a verdict costs little: no key is hashed.
func TestLogDecisionsAllocatesNothingAboveDebug(t *testing.T) {
	var v ratelimit.Verdict
	do(newLimiter(t, ratelimit.Config{
		Policies:   []ratelimit.Policy{forAll("p", ratelimit.RollingWindow(1, time.Hour))},
		OnDecision: func(_ context.Context, of ratelimit.Verdict) { v = of },
	}).Wrap(ok))
	log := ratelimit.LogDecisions(slog.New(slog.DiscardHandler), []byte("secret"))
	if n := testing.AllocsPerRun(100, func() { log(t.Context(), v) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
