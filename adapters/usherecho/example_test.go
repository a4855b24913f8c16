package usherecho_test

import (
	stdcontext "context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/labstack/echo/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/usherecho"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// A whole server: one shape for all responses and a limit on every request, API keys
// for a group, and one route whose requests can be repeated.
func Example() {
	format := apikey.Native{Prefix: "shop", Environments: []string{"live"}}
	store := apikey.NewMemory()
	keys := must(apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format}))
	_, secret, err := keys.Create(stdcontext.Background(), apikey.Actor{System: true}, apikey.Key{Owner: "acme", Name: "demo"})
	if err != nil {
		panic(err)
	}
	auth := must(apikey.New(apikey.Config{Manager: keys}))
	defer func() { _ = auth.Close() }()
	env := must(envelope.New(envelope.Config{Shape: envelope.Data(), Wrap: true}))
	limits := must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{
		{Name: "address", Key: ratelimit.ByAddress(), Limit: ratelimit.TokenBucket(100, time.Minute, 20)},
	}}))
	once := must(idempotency.New(idempotency.Config{}))

	e := echo.New()
	e.HTTPErrorHandler = usherecho.HTTPErrorHandler
	e.Use(usherecho.Middleware(env), usherecho.Middleware(limits))
	e.GET("/health", func(c *echo.Context) error { return c.JSON(http.StatusOK, "up") })

	api := e.Group("/api", usherecho.Middleware(usher.Authenticate(auth)))
	orders := 0
	api.POST("/orders", func(c *echo.Context) error {
		caller, _ := usherecho.PrincipalFrom(c)
		orders++
		return c.JSON(http.StatusCreated, map[string]any{"order": orders, "for": caller.Owner})
	}, usherecho.Middleware(once))
	api.GET("/orders/:id", func(c *echo.Context) error {
		return echo.NewHTTPError(http.StatusNotFound, "No order "+c.Param("id")+".")
	})

	call := func(method, path string, header ...string) {
		r := httptest.NewRequest(method, path, strings.NewReader("{}"))
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		fmt.Println(method, path, w.Code, strings.ReplaceAll(w.Body.String(), "\n", ""))
	}
	key := []string{"X-API-Key", secret.Reveal(), "Idempotency-Key", "k-1"}
	call("GET", "/health")
	call("POST", "/api/orders")
	call("POST", "/api/orders", key...)
	call("POST", "/api/orders", key...) // a retry
	call("GET", "/api/orders/7", key...)
	call("GET", "/nowhere")
	call("POST", "/health")
	// Output:
	// GET /health 200 {"data":"up"}
	// POST /api/orders 401 {"error":{"code":"missing_credential","message":"The request carries no credential."}}
	// POST /api/orders 201 {"data":{"for":"acme","order":1}}
	// POST /api/orders 201 {"data":{"for":"acme","order":1}}
	// GET /api/orders/7 404 {"error":{"code":"not_found","message":"No order 7."}}
	// GET /nowhere 404 {"error":{"code":"not_found","message":"Not Found"}}
	// POST /health 405 {"error":{"code":"method_not_allowed","message":"Method Not Allowed"}}
}

// A middleware that is independent of usher, here from net/http.
func ExampleAdapt() {
	e := echo.New()
	e.Use(usherecho.Adapt(http.NewCrossOriginProtection().Handler))
	e.POST("/orders", func(c *echo.Context) error { return c.String(http.StatusOK, "ordered") })

	for _, site := range []string{"same-origin", "cross-site"} {
		r := httptest.NewRequest(http.MethodPost, "/orders", nil)
		r.Header.Set("Sec-Fetch-Site", site)
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	// Output:
	// 200 ordered
	// 403 cross-origin request detected from Sec-Fetch-Site header
}

// A Requirement reads the parameters of the path from the http.Request, where PathValues
// sets them.
func ExamplePathValues() {
	own := usher.Require(usher.Requirement{
		Owner: func(r *http.Request) string { return r.PathValue("account") },
	})
	e := echo.New()
	e.Use(usherecho.PathValues, usherecho.Adapt(asAcme), usherecho.Middleware(own))
	e.GET("/accounts/:account/notes", func(c *echo.Context) error { return c.String(http.StatusOK, "milk") })

	for _, account := range []string{"acme", "other"} {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/accounts/"+account+"/notes", nil))
		fmt.Println(account, w.Code)
	}
	// Output:
	// acme 200
	// other 404
}

// asAcme stands for usher.Authenticate.
func asAcme(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, usher.WithPrincipal(r, &usher.Principal{ID: "key_1", Owner: "acme"}))
	})
}

// With echo.WrapMiddleware, echo responds to the error of a handler after the middleware
// has returned. The middleware mistakes the error for a success without a body: the retry
// of a payment with a declined card gets a response that reports success.
func ExampleMiddleware_incorrect() {
	env := must(envelope.New(envelope.Config{Shape: envelope.Data(), Wrap: true}))
	once := must(idempotency.New(idempotency.Config{DangerouslyAllowAnonymous: true}))
	e := echo.New()
	e.HTTPErrorHandler = usherecho.HTTPErrorHandler
	pay := func(*echo.Context) error { return echo.NewHTTPError(http.StatusPaymentRequired, "Declined.") }
	e.POST("/wrong", pay, echo.WrapMiddleware(env.Wrap), echo.WrapMiddleware(once.Wrap))
	e.POST("/right", pay, usherecho.Middleware(env), usherecho.Middleware(once))

	for _, path := range []string{"/wrong", "/wrong", "/right", "/right"} {
		r := httptest.NewRequest(http.MethodPost, path, nil)
		r.Header.Set("Idempotency-Key", "k-1")
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		fmt.Printf("%s %d %q\n", path, w.Code, w.Body)
	}
	// Output:
	// /wrong 402 ""
	// /wrong 200 ""
	// /right 402 "{\"error\":{\"code\":\"payment_required\",\"message\":\"Declined.\"}}"
	// /right 402 "{\"error\":{\"code\":\"payment_required\",\"message\":\"Declined.\"}}"
}

// A public error is sent in the shape of the service, or as problem details; the text of
// a private one is not.
func ExampleHTTPErrorHandler() {
	e := echo.New()
	e.HTTPErrorHandler = usherecho.HTTPErrorHandler
	e.GET("/public", func(*echo.Context) error {
		return &usher.Error{Status: http.StatusConflict, Code: "sold_out", Message: "There is none left."}
	})
	e.GET("/echo", func(*echo.Context) error { return echo.NewHTTPError(http.StatusConflict, "There is none left.") })
	e.GET("/private", func(*echo.Context) error { return errors.New("pq: relation does not exist") })

	for _, path := range []string{"/public", "/echo", "/private"} {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Println(w.Body)
	}
	// Output:
	// {"type":"about:blank","title":"Conflict","status":409,"detail":"There is none left.","code":"sold_out"}
	// {"type":"about:blank","title":"Conflict","status":409,"detail":"There is none left."}
	// {"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
