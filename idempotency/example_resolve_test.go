package idempotency_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// payments stands for a payment provider that accepts keys, and returns the payment with a
// key.
type payments map[string]string

func (p payments) pay(_ context.Context, key, item string) { p[key] = item }

func (p payments) find(_ context.Context, key string) (item string, ok bool) {
	item, ok = p[key]
	return item, ok
}

// A handler panics between the payment and its response, so the outcome is unknown. The
// retry asks the provider with the same key that the handler has passed on, and the client
// gets its response: the payment is neither made twice nor left unclear.
func ExampleConfig_resolve() {
	provider := make(payments)
	once, err := idempotency.New(idempotency.Config{
		Resolve: func(r *http.Request, e *idempotency.Execution) (idempotency.Resolution, error) {
			item, ok := provider.find(r.Context(), e.DownstreamKey("payment"))
			if !ok {
				return idempotency.Resolution{Outcome: idempotency.Release}, nil
			}
			return idempotency.Resolution{Outcome: idempotency.Keep, Response: &idempotency.Response{
				Status: http.StatusCreated, Body: []byte("paid: " + item),
			}}, nil
		},
		OnChange: func(_ context.Context, c idempotency.Change) {
			fmt.Println(c.Action, "from", c.Before, "to", c.After)
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	attempts := 0
	h := asAcme(once.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		attempts++
		provider.pay(r.Context(), idempotency.From(r.Context()).DownstreamKey("payment"), "tea")
		panic("out of memory")
	})))
	func() {
		defer func() { fmt.Println("panic:", recover()) }()
		order(h, "a")
	}()
	order(h, "a")
	order(h, "a")
	fmt.Println(attempts, "attempt")
	// Output:
	// panic: out of memory
	// ask from unknown to done
	// 201 paid: tea (replayed)
	// 201 paid: tea (replayed)
	// 1 attempt
}

// A client asks support what has become of its order. The operator looks the request up by
// what the client has sent, finds out that nothing was ordered, and resolves it, so that
// the client may retry.
func ExampleMiddleware_Resolve() {
	once, err := idempotency.New(idempotency.Config{
		OnChange: func(_ context.Context, c idempotency.Change) {
			fmt.Println("audit:", c.Action, "error:", c.Err)
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	attempts := 0
	mux := http.NewServeMux()
	mux.Handle("POST /orders", once.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if attempts++; attempts == 1 {
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, "the warehouse has not responded")
			return
		}
		fmt.Fprint(w, "ordered")
	})))
	h := asAcme(mux)
	order(h, "a")

	ctx := context.Background()
	request := idempotency.RequestKey{
		Principal: &usher.Principal{Kind: usher.KindAPIKey, ID: "acme"},
		Method:    http.MethodPost,
		Route:     "POST /orders",
		Key:       "a",
	}
	entry, err := once.Lookup(ctx, request)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("the outcome is", entry.State, "after status", entry.Status)
	// A retry may run while the operator finds out what has become of this execution.
	request.Generation = entry.Generation
	if err := once.Resolve(ctx, request, idempotency.Resolution{Outcome: idempotency.Release}); err != nil {
		fmt.Println(err)
		return
	}
	order(h, "a")
	// Output:
	// 502 the warehouse has not responded
	// audit: lookup error: <nil>
	// the outcome is unknown after status 502
	// audit: resolve error: <nil>
	// 200 ordered
}
