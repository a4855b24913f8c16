package ushertest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/ushertest"
)

// newServer takes as parameters what a test replaces: in production, auth is
// usher.Authenticate of a real authenticator, and limits is a limiter.
func newServer(auth, limits usher.Middleware) http.Handler {
	read := usher.Require(usher.Requirement{Scopes: []string{"notes:read"}})
	mux := http.NewServeMux()
	mux.Handle("GET /notes", usher.Chain(auth, limits, read).Wrap(http.HandlerFunc(listNotes)))
	return mux
}

func listNotes(w http.ResponseWriter, r *http.Request) {
	caller, _ := usher.PrincipalFrom(r.Context())
	fmt.Fprint(w, "notes of ", caller.Owner)
}

// A server is tested with a caller of the test's choice.
func ExampleAuthenticator() {
	for _, scope := range []string{"notes:read", "orders:read"} {
		auth := usher.Authenticate(ushertest.Authenticator(usher.Principal{
			ID: "key_1", Owner: "acme", Kind: usher.KindAPIKey, Scopes: []string{scope},
		}))
		w := httptest.NewRecorder()
		newServer(auth, usher.Chain()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/notes", nil))
		fmt.Println(scope, w.Code)
	}

	// A test of one handler needs no authenticator.
	r := httptest.NewRequest(http.MethodGet, "/notes", nil)
	w := httptest.NewRecorder()
	listNotes(w, usher.WithPrincipal(r, &usher.Principal{ID: "key_1", Owner: "acme"}))
	fmt.Println(w.Body)
	// Output:
	// notes:read 200
	// orders:read 403
	// notes of acme
}

// The limiter of callers wraps the route, and is inside authentication.
func ExampleWatched_Reached() {
	auth := usher.Authenticate(ushertest.Authenticator(usher.Principal{ID: "key_1", Kind: usher.KindAPIKey}))
	limits := ushertest.Watch(usher.Must(ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{ratelimit.PerPrincipal(100, time.Minute)},
	})))
	server := newServer(auth, limits)

	arrived, err := limits.Reached(server, httptest.NewRequest(http.MethodGet, "/notes", nil))
	if err != nil {
		fmt.Println(err)
		return
	}
	caller, _ := usher.PrincipalFrom(arrived.Context())
	fmt.Println(caller.ID)

	_, err = limits.Reached(server, httptest.NewRequest(http.MethodGet, "/health", nil))
	fmt.Println(err)
	// Output:
	// key_1
	// ushertest: the middleware was not reached: the status of GET /health is 404
}
