package peers

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// Rate limits bound what each caller may use. Whether the server can still serve it at all is
// another question, which failsafe-go decides by how long requests take. Put it inside the
// rate limits, so that one caller cannot use up the room of all, and charge no request that
// it refuses.
func Example_loadShedding() {
	limits := usher.Must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
		Name: "address", Key: ratelimit.ByAddress(), Limit: ratelimit.RollingWindow(100, time.Minute),
		Count: func(status int) bool { return status != http.StatusServiceUnavailable },
	}}}))
	room := adaptivelimiter.NewBuilder[any]().WithLimits(1, 200, 1).Build()
	shedding := usher.Adapt(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			permit, ok := room.TryAcquirePermit()
			if !ok {
				usher.Fail(w, r, &usher.Error{
					Status: http.StatusServiceUnavailable, Code: "overloaded", RetryAfter: time.Second,
					Type: "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
				})
				return
			}
			defer permit.Record()
			next.ServeHTTP(w, r)
		})
	})
	var server http.Handler
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		server.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	server = usher.Chain(limits, shedding).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			w := get("/") // while the only place is in use
			fmt.Println(w.Code, w.Header().Get("Content-Type"), w.Header().Get("Retry-After"))
		}
	}))
	fmt.Println(get("/slow").Code)
	fmt.Println(get("/").Header().Get("RateLimit"))
	// Output:
	// 503 application/problem+json 1
	// 200
	// "address";r=98;t=60
}
