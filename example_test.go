package usher_test

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/usher-go/usher"
)

// A Badge is a small authenticator: it accepts one badge, by its
// hash.
type Badge struct{ sum [sha256.Size]byte }

// Authenticate makes Badge an usher.Authenticator.
func (b Badge) Authenticate(r *http.Request) (*usher.Principal, error) {
	badges := r.Header.Values("X-Badge")
	if len(badges) == 0 {
		return nil, usher.ErrNoCredential
	}
	sum := sha256.Sum256([]byte(badges[0]))
	if len(badges) > 1 || subtle.ConstantTimeCompare(sum[:], b.sum[:]) != 1 {
		return nil, &usher.Error{Status: http.StatusUnauthorized, Code: "bad_badge", Message: "This badge is not valid."}
	}
	return &usher.Principal{ID: "badge 7", Kind: "badge", Level: usher.LevelReadOnly}, nil
}

var badge = Badge{sha256.Sum256([]byte("1234"))}

// ask prints the response of h to a request with these fields.
func ask(h http.Handler, method string, fields ...string) {
	r := httptest.NewRequest(method, "/notes", nil)
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
}

// An authenticator is one method; the middleware around it does the rest.
func Example() {
	auth := usher.Authenticate(badge)
	write := usher.Require(usher.Requirement{MethodLevels: map[string]usher.Level{"POST": usher.LevelReadWrite}})

	notes := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := usher.PrincipalFrom(r.Context())
		fmt.Fprintf(w, "hello %s", p.ID)
	})
	h := usher.Chain(auth, write).Wrap(notes)

	ask(h, "GET", "X-Badge", "1234")
	ask(h, "GET", "X-Badge", "4321")
	ask(h, "POST", "X-Badge", "1234")
	// Output:
	// 200 hello badge 7
	// 401 {"type":"about:blank","title":"Unauthorized","status":401,"detail":"This badge is not valid.","code":"bad_badge"}
	// 403 {"type":"about:blank","title":"Forbidden","status":403,"detail":"The credential does not permit this.","code":"insufficient_permission"}
}

// A visitor authenticates by name, for the examples.
type visitor struct{ field string }

func (v visitor) Authenticate(r *http.Request) (*usher.Principal, error) {
	switch name := r.Header.Get(v.field); name {
	case "":
		return nil, usher.ErrNoCredential
	case "mallory":
		return nil, &usher.Error{Status: http.StatusUnauthorized, Code: "unwelcome"}
	default:
		return &usher.Principal{ID: name, Kind: "visitor"}, nil
	}
}

func greet(w http.ResponseWriter, r *http.Request) {
	p, ok := usher.PrincipalFrom(r.Context())
	if !ok {
		p.ID = "anonymous"
	}
	fmt.Fprintf(w, "hello %s", p.ID)
}

// Two credentials in one request are refused, unless Precedence ranks them. Then one
// credential decides alone: a bad one never falls back to the other.
func ExamplePrecedence() {
	name, token := visitor{"X-Name"}, visitor{"X-Token"}

	h := usher.Authenticate(name, token).Wrap(http.HandlerFunc(greet))
	ask(h, "GET", "X-Name", "alice", "X-Token", "bob")

	h = usher.Authenticate(usher.Precedence(token, name)).Wrap(http.HandlerFunc(greet))
	ask(h, "GET", "X-Name", "alice", "X-Token", "bob")
	ask(h, "GET", "X-Name", "alice", "X-Token", "mallory")
	ask(h, "GET", "X-Name", "alice")
	// Output:
	// 401 {"type":"about:blank","title":"Unauthorized","status":401,"detail":"The request carries more than one credential.","code":"ambiguous_credentials"}
	// 200 hello bob
	// 401 {"type":"about:blank","title":"Unauthorized","status":401,"code":"unwelcome"}
	// 200 hello alice
}

// A server that already has clients learns who would be refused before it refuses anyone.
func ExampleAccess_shadow() {
	access := usher.Access{
		Shadow: true, // remove it when OnRefusal has nothing left to say
		OnRefusal: func(r *http.Request, e *usher.Error) {
			fmt.Println("would refuse", r.Method, r.URL.Path, "with", e.Status, e.Code)
		},
	}
	h := usher.Chain(
		access.Authenticate(visitor{"X-Name"}),
		access.Require(usher.Requirement{Level: usher.LevelReadOnly}),
	).Wrap(http.HandlerFunc(greet))

	ask(h, "GET", "X-Name", "mallory")
	ask(h, "GET", "X-Name", "alice")
	// Output:
	// would refuse GET /notes with 401 unwelcome
	// 200 hello anonymous
	// would refuse GET /notes with 403 insufficient_permission
	// 200 hello alice
}

func ExampleOptional() {
	h := usher.Authenticate(usher.Optional(visitor{"X-Name"})).Wrap(http.HandlerFunc(greet))

	ask(h, "GET")
	ask(h, "GET", "X-Name", "alice")
	ask(h, "GET", "X-Name", "mallory")
	// Output:
	// 200 hello anonymous
	// 200 hello alice
	// 401 {"type":"about:blank","title":"Unauthorized","status":401,"code":"unwelcome"}
}

func ExampleRequire() {
	h := usher.Require(usher.Requirement{Scopes: []string{"notes:write"}}).Wrap(http.HandlerFunc(greet))

	r := httptest.NewRequest(http.MethodGet, "/notes", nil)
	for _, p := range []*usher.Principal{{ID: "alice", Scopes: []string{"notes:write"}}, {ID: "bob"}} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, usher.WithPrincipal(r, p)) // as Authenticate would
		fmt.Println(w.Code, w.Header()["Www-Authenticate"])
	}
	// Output:
	// 200 []
	// 403 [Bearer error="insufficient_scope", scope="notes:write"]
}

// A function is a middleware.
func ExampleMiddlewareFunc() {
	version := usher.MiddlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Set("Api-Version", "3")
		next.ServeHTTP(w, r)
	})
	h := usher.Chain(version, usher.Authenticate(visitor{"X-Name"})).Wrap(http.HandlerFunc(greet))

	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/notes", nil))
	fmt.Println(w.Code, w.Header().Get("Api-Version"))
	// Output:
	// 401 3
}

// A net/http middleware, for instance from otelhttp or rs/cors, becomes part of a Chain.
// Put CORS outside authentication, as browsers send no credential with a preflight
// request.
func ExampleAdapt() {
	sameOrigin := usher.Adapt(http.NewCrossOriginProtection().Handler)
	h := usher.Chain(sameOrigin, usher.Authenticate(visitor{"X-Name"})).Wrap(http.HandlerFunc(greet))

	ask(h, "POST", "X-Name", "alice")
	ask(h, "POST", "X-Name", "alice", "Sec-Fetch-Site", "cross-site")
	// Output:
	// 200 hello alice
	// 403 cross-origin request detected from Sec-Fetch-Site header
}

// Pattern makes the route known to middlewares outside the router. Here Unless exempts
// one route by its pattern, and no other spelling of the path.
func ExamplePattern() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "up") })
	mux.HandleFunc("GET /notes", greet)
	isHealth := func(r *http.Request) bool { return r.Pattern == "GET /health" }
	h := usher.Chain(usher.Pattern(mux), usher.Unless(isHealth, usher.Authenticate(visitor{"X-Name"}))).Wrap(mux)

	for _, path := range []string{"/health", "/notes"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Println(path, w.Code)
	}
	// Output:
	// /health 200
	// /notes 401
}

// Handlers pass their context on, and pass its error to Fail. Streams are exempt.
func ExampleDeadline() {
	deadline := usher.Deadline(time.Millisecond, &usher.Error{
		Status:  http.StatusGatewayTimeout,
		Code:    usher.CodeDeadlineExceeded,
		Message: "The report takes longer than expected.",
	})
	isStream := func(r *http.Request) bool { return r.Pattern == "GET /events" }
	query := func(ctx context.Context) error { // of a database
		<-ctx.Done()
		return fmt.Errorf("query: %w", ctx.Err())
	}
	h := usher.Unless(isStream, deadline).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := query(r.Context()); err != nil {
			usher.Fail(w, r, err)
			return
		}
	}))

	ask(h, "GET")
	// Output:
	// 504 {"type":"about:blank","title":"Gateway Timeout","status":504,"detail":"The report takes longer than expected.","code":"deadline_exceeded"}
}

// Must is for the set-up of a program, which must not start with a faulty Config.
func ExampleMust() {
	location := usher.Must(time.LoadLocation("UTC"))
	fmt.Println(location)
	// Output:
	// UTC
}

// Each kind of credential needs something different, and every caller stays within its
// own account: other accounts do not seem to exist.
func ExampleAnyOf() {
	own := func(r *http.Request) string { return r.PathValue("account") }
	read := usher.AnyOf(
		usher.Requirement{Kinds: []usher.Kind{usher.KindAPIKey}, Level: usher.LevelReadOnly},
		usher.Requirement{Kinds: []usher.Kind{usher.KindJWT}, Scopes: []string{"notes:read"}},
	)
	mux := http.NewServeMux()
	mux.Handle("GET /{account}/notes", usher.Chain(
		usher.Require(read), usher.Require(usher.Requirement{Owner: own}),
	).Wrap(http.HandlerFunc(greet)))

	key := &usher.Principal{ID: "key_1", Owner: "acme", Kind: usher.KindAPIKey, Level: usher.LevelReadOnly}
	token := &usher.Principal{ID: "alice", Owner: "acme", Kind: usher.KindJWT}
	for _, p := range []*usher.Principal{key, token} {
		for _, path := range []string{"/acme/notes", "/other/notes"} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, path, nil)
			mux.ServeHTTP(w, usher.WithPrincipal(r, p)) // as Authenticate would
			fmt.Println(p.Kind, path, w.Code)
		}
	}
	// Output:
	// api_key /acme/notes 200
	// api_key /other/notes 404
	// jwt /acme/notes 403
	// jwt /other/notes 403
}

// Fail sends the public part of an Error and hides every other error.
func ExampleFail() {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cause := errors.New("dial tcp 10.0.0.7:5432: connection refused")
		if r.Method == http.MethodGet {
			usher.Fail(w, r, cause)
			return
		}
		usher.Fail(w, r, &usher.Error{
			Status:  http.StatusServiceUnavailable,
			Code:    "notes_unavailable",
			Message: "The notes are not available. Please try again.",
			Cause:   cause,
		})
	})

	ask(h, "GET")
	ask(h, "POST")
	// Output:
	// 500 {"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}
	// 503 {"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The notes are not available. Please try again.","code":"notes_unavailable"}
}

// An access log outside everything else still reads the principal.
func ExampleTrack() {
	accessLog := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tracked := usher.Track(r)
			next.ServeHTTP(w, tracked)
			r.MultipartForm, r.Pattern = tracked.MultipartForm, tracked.Pattern // for the server, and for tracers
			p, known := usher.PrincipalFrom(tracked.Context())
			fmt.Printf("%s %s %q %t\n", r.Method, r.URL.Path, p.ID, known)
		})
	}
	h := accessLog(usher.Authenticate(visitor{"X-Name"}).Wrap(http.HandlerFunc(greet)))

	ask(h, "GET", "X-Name", "alice")
	ask(h, "GET", "X-Name", "mallory")
	// Output:
	// GET /notes "alice" true
	// 200 hello alice
	// GET /notes "" false
	// 401 {"type":"about:blank","title":"Unauthorized","status":401,"code":"unwelcome"}
}

// A common mistake is to return neither a principal nor an error when a lookup fails, as
// if that meant anonymous. Such a request is refused; return ErrNoCredential, or the
// error of the lookup.
func ExampleAuthenticate_incorrect() {
	incorrect := authenticatorFunc(func(*http.Request) (*usher.Principal, error) {
		return nil, nil
	})
	h := usher.Authenticate(usher.Optional(incorrect)).Wrap(http.HandlerFunc(greet))

	ask(h, "GET")
	// Output:
	// 503 {"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The credential could not be checked. Please try again.","code":"authentication_unavailable"}
}

type authenticatorFunc func(r *http.Request) (*usher.Principal, error)

func (f authenticatorFunc) Authenticate(r *http.Request) (*usher.Principal, error) { return f(r) }

// Another common mistake is to stack two Authenticates in order to accept either
// credential. A request must then satisfy both; pass both authenticators to one
// Authenticate.
func ExampleAuthenticate_incorrectStack() {
	name, token := visitor{"X-Name"}, visitor{"X-Token"}

	incorrect := usher.Chain(usher.Authenticate(token), usher.Authenticate(name)).Wrap(http.HandlerFunc(greet))
	ask(incorrect, "GET", "X-Name", "alice")

	either := usher.Authenticate(token, name).Wrap(http.HandlerFunc(greet))
	ask(either, "GET", "X-Name", "alice")
	// Output:
	// 401 {"type":"about:blank","title":"Unauthorized","status":401,"detail":"The request carries no credential.","code":"missing_credential"}
	// 200 hello alice
}
