package ratelimit_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// The header fields describe the policies that count a request: not those that an inner
// Only has replaced, even if its own policies say nothing.
func TestOnlyWithdrawsTheHeaderFieldsOfWhatItReplaces(t *testing.T) {
	hour := func(name string, n int) ratelimit.Policy { return forAll(name, ratelimit.RollingWindow(n, time.Hour)) }
	hidden, skipped := hour("own", 9), hour("own", 9)
	hidden.Hidden = true
	skipped.Applies = func(*http.Request) bool { return false }
	type fields struct{ policies, states, limit, remaining string }
	for _, c := range []struct {
		name  string
		own   ratelimit.Policy
		stack func(other, parent, child, only *ratelimit.Limiter) http.Handler
		want  fields
		left  string // of the parent, for the next request
	}{
		{
			"no limit", forAll("own", ratelimit.Unlimited()),
			func(_, parent, _, only *ratelimit.Limiter) http.Handler { return parent.Wrap(only.Wrap(ok)) },
			fields{}, "4",
		},
		{
			"a hidden limit", hidden,
			func(_, parent, _, only *ratelimit.Limiter) http.Handler { return parent.Wrap(only.Wrap(ok)) },
			fields{}, "4",
		},
		{
			"a limit that does not apply", skipped,
			func(_, parent, _, only *ratelimit.Limiter) http.Handler { return parent.Wrap(only.Wrap(ok)) },
			fields{}, "4",
		},
		{
			"a limit with more left", hour("own", 9),
			func(_, parent, _, only *ratelimit.Limiter) http.Handler { return parent.Wrap(only.Wrap(ok)) },
			fields{`"own";q=9;w=3600`, `"own";r=8;t=3600`, "9", "8"}, "4",
		},
		{
			"inside a child of the parent", forAll("own", ratelimit.Unlimited()),
			func(_, _, child, only *ratelimit.Limiter) http.Handler { return child.Wrap(only.Wrap(ok)) },
			fields{}, "4",
		},
		{
			"inside a child inside the parent", forAll("own", ratelimit.Unlimited()),
			func(_, parent, child, only *ratelimit.Limiter) http.Handler {
				return parent.Wrap(child.Wrap(only.Wrap(ok)))
			},
			fields{}, "4",
		},
		{
			"the fields of a limiter that it does not replace stay", forAll("own", ratelimit.Unlimited()),
			func(other, parent, _, only *ratelimit.Limiter) http.Handler {
				return usher.Chain(other, parent, only).Wrap(ok)
			},
			fields{policies: `"other";q=7;w=3600`, states: `"other";r=6;t=3600`}, "4",
		},
		{
			"a policy of its own that an outer limiter has charged stays", hour("own", 9),
			func(_, _, _, only *ratelimit.Limiter) http.Handler {
				return must(t)(only.With(hour("deep", 9))).Wrap(only.Wrap(ok))
			},
			fields{policies: `"own";q=9;w=3600`, states: `"own";r=8;t=3600`}, "4",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := func(p ratelimit.Policy) ratelimit.Config {
				return ratelimit.Config{Policies: []ratelimit.Policy{p}, Headers: ratelimit.StandardAndDeltaHeaders}
			}
			other, parent := newLimiter(t, config(hour("other", 7))), newLimiter(t, config(hour("parent", 5)))
			child := must(t)(parent.With(hour("child", 3)))
			only := must(t)(parent.Only(c.own))
			h := do(c.stack(other, parent, child, only)).Header()
			got := fields{h.Get("RateLimit-Policy"), h.Get("RateLimit"), h.Get("X-RateLimit-Limit"), h.Get("X-RateLimit-Remaining")}
			if got != c.want {
				t.Errorf("fields %+v, want %+v", got, c.want)
			}
			if n := do(parent.Wrap(ok)).Header().Get("X-RateLimit-Remaining"); n != c.left {
				t.Errorf("%s left of the parent, want %s", n, c.left)
			}
		})
	}
}
