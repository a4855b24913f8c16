package ratelimit_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

// What a handler leaves running behind it may settle at the very moment at which
// the decision ends, and must not meet that of another request.
func TestSettlingWhileTheDecisionEnds(t *testing.T) {
	var left sync.WaitGroup
	var handled int
	l := limiterOf(t, ratelimit.Policy{
		Name: "tokens", Key: ratelimit.Everyone(), Limit: ratelimit.RollingWindow(1000, time.Hour), Settle: true,
	})
	h := l.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		handled++
		left.Go(func() {
			for {
				// As much as was taken, so that the sum stays what it is.
				err := ratelimit.Settle(r.Context(), "tokens", 1)
				if errors.Is(err, ratelimit.ErrNotSettled) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}))
	for range 500 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	}
	left.Wait()
	if handled != 500 {
		t.Errorf("%d requests were admitted", handled)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	left.Wait()
	if got, want := w.Header().Get("RateLimit"), `"tokens";r=499;t=3600`; got != want {
		t.Errorf("RateLimit is %s, want %s", got, want)
	}
}
