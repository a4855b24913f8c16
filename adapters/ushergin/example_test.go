package ushergin_test

import (
	stdcontext "context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/ushergin"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// A whole server: one shape for all responses, a limit on every request, API keys for
// a group, and one route whose requests can be repeated.
func Example() {
	format := apikey.Native{Prefix: "shop", Environments: []string{"live"}}
	store := apikey.NewMemory()
	keys, err := apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format})
	check(err)
	_, secret, err := keys.Create(stdcontext.Background(), apikey.Actor{System: true}, apikey.Key{Owner: "acme", Name: "demo"})
	check(err)

	env, err := envelope.New(envelope.Config{Shape: envelope.Data(), Wrap: true})
	check(err)
	limits, err := ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{
		{Name: "address", Key: ratelimit.ByAddress(), Limit: ratelimit.TokenBucket(100, time.Minute, 20)},
	}})
	check(err)
	auth, err := apikey.New(apikey.Config{Manager: keys})
	check(err)
	defer func() { _ = auth.Close() }()
	once, err := idempotency.New(idempotency.Config{})
	check(err)

	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	engine.Use(ushergin.Middleware(env), ushergin.Errors, ushergin.Middleware(limits))
	engine.NoRoute(ushergin.NoRoute)
	engine.NoMethod(ushergin.NoMethod)
	engine.GET("/health", func(c *gin.Context) { c.JSON(200, "up") })

	api := engine.Group("/api", ushergin.Middleware(usher.Authenticate(auth)))
	orders := 0
	api.POST("/orders", ushergin.Middleware(once), func(c *gin.Context) {
		caller, _ := ushergin.PrincipalFrom(c)
		orders++
		c.JSON(http.StatusCreated, gin.H{"order": orders, "for": caller.Owner})
	})
	api.GET("/orders/:id", func(c *gin.Context) {
		_ = c.Error(&usher.Error{Status: http.StatusNotFound, Code: "no_such_order", Message: "No order " + c.Param("id") + "."})
	})

	call := func(method, path string, header ...string) {
		r := httptest.NewRequest(method, path, strings.NewReader("{}"))
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		engine.ServeHTTP(w, r)
		fmt.Println(method, path, w.Code, w.Body)
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
	// GET /api/orders/7 404 {"error":{"code":"no_such_order","message":"No order 7."}}
	// GET /nowhere 404 {"error":{"code":"not_found","message":"Not Found"}}
	// POST /health 405 {"error":{"code":"method_not_allowed","message":"Method Not Allowed"}}
}

// A middleware that is independent of usher, here from net/http.
func ExampleAdapt() {
	engine := gin.New()
	engine.Use(ushergin.Adapt(http.NewCrossOriginProtection().Handler))
	engine.POST("/orders", func(c *gin.Context) { c.String(200, "ordered") })

	for _, site := range []string{"same-origin", "cross-site"} {
		r := httptest.NewRequest(http.MethodPost, "/orders", nil)
		r.Header.Set("Sec-Fetch-Site", site)
		w := httptest.NewRecorder()
		engine.ServeHTTP(w, r)
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
	engine := gin.New()
	engine.Use(ushergin.PathValues, ushergin.Adapt(asAcme), ushergin.Middleware(own))
	engine.GET("/accounts/:account/notes", func(c *gin.Context) { c.String(200, "milk") })

	for _, account := range []string{"acme", "other"} {
		w := httptest.NewRecorder()
		engine.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/accounts/"+account+"/notes", nil))
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

// gin.WrapH is for handlers, not for middlewares: it does not know whether the
// middleware has called next, so the handler runs for callers who were refused.
func ExampleMiddleware_incorrect() {
	denyAll := usher.Authenticate(refuseAll{})
	transfer := func(c *gin.Context) { c.String(200, "transferred!") }

	engine := gin.New()
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	engine.POST("/wrong", gin.WrapH(denyAll.Wrap(next)), transfer)
	engine.POST("/right", ushergin.Middleware(denyAll), transfer)

	for _, path := range []string{"/wrong", "/right"} {
		w := httptest.NewRecorder()
		engine.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
		fmt.Println(path, w.Code, strings.HasSuffix(w.Body.String(), "transferred!"))
	}
	// Output:
	// /wrong 401 true
	// /right 401 false
}

// Errors responds to an error in c.Errors in the shape of the service. The text of a
// private one is not sent.
func ExampleErrors() {
	engine := gin.New()
	engine.Use(ushergin.Errors)
	engine.GET("/public", func(c *gin.Context) {
		_ = c.Error(&usher.Error{Status: http.StatusConflict, Code: "sold_out", Message: "There is none left."})
	})
	engine.GET("/private", func(c *gin.Context) {
		_ = c.Error(errors.New("pq: relation does not exist"))
	})

	for _, path := range []string{"/public", "/private"} {
		w := httptest.NewRecorder()
		engine.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Println(w.Body)
	}
	// Output:
	// {"type":"about:blank","title":"Conflict","status":409,"detail":"There is none left.","code":"sold_out"}
	// {"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}
}

type refuseAll struct{}

func (refuseAll) Authenticate(*http.Request) (*usher.Principal, error) {
	return nil, usher.ErrNoCredential
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
