package idempotency_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/usher-go/usher/idempotency"
)

// A handler whose request certainly had no effect releases the key, so that a retry runs.
func ExampleExecution_SetOutcome() {
	once, err := idempotency.New(idempotency.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	attempts := 0
	h := asAcme(once.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if attempts++; attempts == 1 {
			// The connection was refused, so the bank has not seen the payment.
			idempotency.From(r.Context()).SetOutcome(idempotency.Release)
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, "the bank is down")
			return
		}
		fmt.Fprint(w, "paid")
	})))
	order(h, "a")
	order(h, "a")
	// Output:
	// 502 the bank is down
	// 200 paid
}

// A payment provider delivers each event again until it gets a success. Its deliveries have
// an ID in a header field, and no principal: the signature, which is verified further out,
// shows who has sent them. A delivery that has failed runs again.
func ExampleProfileDeliveries() {
	once, err := idempotency.New(idempotency.Config{
		Header:   "Webhook-Id",
		Required: true,
		Profile:  idempotency.ProfileDeliveries,
		Owner:    func(*http.Request) (string, bool) { return "the provider", true },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	attempts := 0
	h := once.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if attempts++; attempts == 1 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	for range 3 {
		r := httptest.NewRequest(http.MethodPost, "/events", strings.NewReader(`{"type":"payment.settled"}`))
		r.Header.Set("Webhook-Id", "msg_1")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, "replayed:", w.Header().Get("Idempotency-Replayed") == "true")
	}
	fmt.Println(attempts, "attempts")
	// Output:
	// 500 replayed: false
	// 202 replayed: false
	// 202 replayed: true
	// 2 attempts
}
