package idempotency_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A delivery is a message of a queue, which delivers it again until it is acknowledged.
type delivery struct{ id, body string }

// A consumer of a queue that delivers each message at least once has each effect once. It
// acknowledges a message that is done or refused for good, and leaves others to the queue.
func ExampleMiddleware_Execute() {
	once, err := idempotency.New(idempotency.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	stock := map[string]int{"tea": 1}
	consume := func(ctx context.Context, d delivery) (acknowledge bool) {
		reply, replayed, err := once.Execute(ctx, idempotency.Call{
			Owner: "warehouse", Operation: "ship", Key: d.id, Payload: []byte(d.body),
		}, func(context.Context) ([]byte, error) {
			if stock[d.body] == 0 {
				return nil, &usher.Error{Status: 422, Code: "sold_out", Message: "There is none left."}
			}
			stock[d.body]--
			return []byte("shipped " + d.body), nil
		})
		if refusal, ok := errors.AsType[*usher.Error](err); ok && refusal.Status >= 500 || ok && refusal.RetryAfter > 0 {
			return false // later
		}
		fmt.Println(d.id, string(reply), err, "replayed:", replayed)
		return true
	}
	for _, d := range []delivery{{"m1", "tea"}, {"m1", "tea"}, {"m2", "tea"}, {"m2", "tea"}} {
		consume(context.Background(), d)
	}
	// Output:
	// m1 shipped tea <nil> replayed: false
	// m1 shipped tea <nil> replayed: true
	// m2  422 sold_out: There is none left. replayed: false
	// m2  422 sold_out: There is none left. replayed: true
}
