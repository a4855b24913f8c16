package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// A delivery is a message of a queue, which delivers it again until it is acknowledged.
type delivery struct{ id, body string }

// A consumer of a queue that delivers each message at least once has each effect once. Its
// work is one transaction, so a failure has no effect, and the profile frees the key. With
// ProfileDefault the outcome of a failure would be unknown, and no later delivery would run.
func ExampleMiddleware_Execute() {
	once, err := idempotency.New(idempotency.Config{Profile: idempotency.ProfileReleaseServerErrors})
	if err != nil {
		fmt.Println(err)
		return
	}
	stock, down := map[string]int{"tea": 1}, true
	ship := func(item string) ([]byte, error) {
		switch {
		case down:
			down = false
			return nil, errors.New("the database is down")
		case stock[item] == 0:
			return nil, &usher.Error{Status: 422, Code: "sold_out", Message: "There is none left."}
		}
		stock[item]--
		return []byte("shipped " + item), nil
	}
	consume := func(ctx context.Context, d delivery) {
		reply, replayed, err := once.Execute(ctx, idempotency.Call{
			Owner: "warehouse", Operation: "ship", Key: d.id, Payload: []byte(d.body),
		}, func(context.Context) ([]byte, error) { return ship(d.body) })
		failure, ok := errors.AsType[*usher.Error](err)
		switch {
		case err == nil:
			fmt.Println(d.id, "acknowledge:", string(reply), "replayed:", replayed)
		case !ok, failure.Status >= 500, failure.RetryAfter > 0:
			fmt.Println(d.id, "deliver again:", err)
		case strings.HasPrefix(failure.Code, "idempotency_"):
			fmt.Println(d.id, "have somebody look at it:", err)
		default: // refused for good
			fmt.Println(d.id, "acknowledge:", err, "replayed:", replayed)
		}
	}
	for _, d := range []delivery{{"m1", "tea"}, {"m1", "tea"}, {"m1", "tea"}, {"m1", "milk"}, {"m2", "tea"}, {"m2", "tea"}} {
		consume(context.Background(), d)
	}
	// Output:
	// m1 deliver again: the database is down
	// m1 acknowledge: shipped tea replayed: false
	// m1 acknowledge: shipped tea replayed: true
	// m1 have somebody look at it: 422 idempotency_key_reused: This idempotency key was used for another request.
	// m2 acknowledge: 422 sold_out: There is none left. replayed: false
	// m2 acknowledge: 422 sold_out: There is none left. replayed: true
}
